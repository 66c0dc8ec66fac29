/* Formats as regular expressions over the whole string: those of the standard that are regular, by the grammars of their RFCs.
 * A format that is not in the table is an annotation, as the standard has it for any format. Narrower than the RFC where that costs
 * nobody anything: no leap second, no quoted local parts, no comments, ASCII hosts. Pure data. */
#include <string.h>

#include "api/schema_impl.h"

/* RFC 3339, with the days of the months, and of February in leap years. */
#define YEAR "[0-9]{4}"
#define LEAP "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
#define DATE "(?:" YEAR "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|" LEAP "-02-29)"
#define TIME "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
/* RFC 3339 appendix A */
#define DURATION \
    "P(?:[0-9]{1,9}W|(?:[0-9]{1,9}Y(?:[0-9]{1,9}M(?:[0-9]{1,9}D)?)?|[0-9]{1,9}M(?:[0-9]{1,9}D)?|[0-9]{1,9}D)(?:T" DURATION_TIME ")?|T" DURATION_TIME ")"
#define DURATION_TIME "(?:[0-9]{1,9}H(?:[0-9]{1,9}M(?:[0-9]{1,9}S)?)?|[0-9]{1,9}M(?:[0-9]{1,9}S)?|[0-9]{1,9}S)"
/* RFC 1123: labels of up to 63, the whole kept short by the number of labels; no A-labels, whose content would need decoding */
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9]|[A-Za-z0-9-][A-Za-z0-9]?|[A-Za-z0-9](?:[A-Za-z0-9-]{0,59})[A-Za-z0-9])?"
#define HOST "(?:[A-Za-z0-9](?:[A-Za-z0-9]?|[A-Za-z0-9-][A-Za-z0-9]|[A-Za-z0-9](?:-?[A-Za-z0-9]){1,30}))" \
             "(?:\\.(?:[A-Za-z0-9](?:[A-Za-z0-9]?|[A-Za-z0-9-][A-Za-z0-9]|[A-Za-z0-9](?:-?[A-Za-z0-9]){1,30}))){0,3}"
#define ATEXT "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
#define EMAIL ATEXT "{1,30}(?:\\." ATEXT "{1,30}){0,1}@" HOST
#define OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4 OCTET "(?:\\." OCTET "){3}"
/* RFC 4291 by RFC 3986's nine rows */
#define H16 "[0-9A-Fa-f]{1,4}"
#define LS32 "(?:" H16 ":" H16 "|" IPV4 ")"
#define IPV6 \
    "(?:(?:" H16 ":){6}" LS32 "|::(?:" H16 ":){5}" LS32 "|(?:" H16 ")?::(?:" H16 ":){4}" LS32 "|(?:(?:" H16 ":){0,1}" H16 ")?::(?:" H16 ":){3}" LS32 \
    "|(?:(?:" H16 ":){0,2}" H16 ")?::(?:" H16 ":){2}" LS32 "|(?:(?:" H16 ":){0,3}" H16 ")?::" H16 ":" LS32 "|(?:(?:" H16 ":){0,4}" H16 ")?::" LS32 \
    "|(?:(?:" H16 ":){0,5}" H16 ")?::" H16 "|(?:(?:" H16 ":){0,6}" H16 ")?::)"
/* RFC 3986 */
#define PCT "%[0-9A-Fa-f]{2}"
#define PCHAR "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|" PCT ")"
#define QUERY "(?:\\?(?:" PCHAR "|[/?])*)?(?:#(?:" PCHAR "|[/?])*)?"
#define REGNAME "(?:[A-Za-z0-9._~!$&'()*+,;=-]|" PCT ")*"
#define AUTHORITY "(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|" PCT ")*@)?(?:\\[" IPV6 "\\]|" REGNAME ")(?::[0-9]{0,5})?"
#define ABEMPTY "(?:/" PCHAR "*)*"
#define HIER "(?://" AUTHORITY ABEMPTY "|/(?:" PCHAR "+" ABEMPTY ")?|" PCHAR "+" ABEMPTY ")?"
#define URI "[A-Za-z][A-Za-z0-9+.-]*:" HIER QUERY
#define NOCOLON "(?:[A-Za-z0-9._~!$&'()*+,;=@-]|" PCT ")"
#define RELATIVE "(?://" AUTHORITY ABEMPTY "|/(?:" PCHAR "+" ABEMPTY ")?|" NOCOLON "+" ABEMPTY ")?" QUERY
#define UUID "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
/* RFC 6901 */
#define POINTER "(?:/(?:[^/~]|~[01])*)*"

static const struct {
    const char *name, *regex;
} formats[] = {
    {"date-time", DATE "[Tt]" TIME}, {"date", DATE}, {"time", TIME}, {"duration", DURATION},
    {"email", EMAIL}, {"idn-email", EMAIL}, {"hostname", HOST}, {"idn-hostname", HOST},
    {"ipv4", IPV4}, {"ip-address", IPV4}, {"ipv6", IPV6},
    {"uri", URI}, {"uri-reference", "(?:" URI "|" RELATIVE ")"}, {"iri", URI}, {"iri-reference", "(?:" URI "|" RELATIVE ")"},
    {"uuid", UUID}, {"json-pointer", POINTER}, {"relative-json-pointer", "(?:0|[1-9][0-9]{0,8})(?:#|" POINTER ")"},
};

const char *qn_s_format(const char *name, size_t n) {
    for (size_t i = 0; name && i < sizeof formats / sizeof *formats; i++)
        if (strlen(formats[i].name) == n && memcmp(formats[i].name, name, n) == 0) return formats[i].regex;
    return NULL;
}
