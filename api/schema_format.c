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
/* RFC 1123: labels of up to 63. None has "--" as its third and fourth character: an A-label would have to decode. */
#define AN "[A-Za-z0-9]"
#define ANH "[A-Za-z0-9-]"
#define LABEL AN "(?:" AN "|" ANH AN "|" ANH ANH AN "|" ANH "(?:" AN ANH "|-" AN ")" ANH "{0,58}" AN ")?"
#define HOST LABEL "(?:\\." LABEL ")*"
#define ATEXT "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
#define EMAIL ATEXT "+(?:\\." ATEXT "+)*@" HOST
/* RFC 6531 and RFC 3987: other characters too; hosts stay ASCII */
#define UCS "\u00A0-\uD7FF\uF900-\uFDCF\uFDF0-\uFFEF"
#define UTEXT "[A-Za-z0-9!#$%&'*+/=?^_`{|}~" UCS "-]"
#define IDN_EMAIL UTEXT "+(?:\\." UTEXT "+)*@" HOST
#define OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4 OCTET "(?:\\." OCTET "){3}"
/* RFC 4291 by RFC 3986's nine rows */
#define H16 "[0-9A-Fa-f]{1,4}"
#define LS32 "(?:" H16 ":" H16 "|" IPV4 ")"
#define IPV6 \
    "(?:(?:" H16 ":){6}" LS32 "|::(?:" H16 ":){5}" LS32 "|(?:" H16 ")?::(?:" H16 ":){4}" LS32 "|(?:(?:" H16 ":){0,1}" H16 ")?::(?:" H16 ":){3}" LS32 \
    "|(?:(?:" H16 ":){0,2}" H16 ")?::(?:" H16 ":){2}" LS32 "|(?:(?:" H16 ":){0,3}" H16 ")?::" H16 ":" LS32 "|(?:(?:" H16 ":){0,4}" H16 ")?::" LS32 \
    "|(?:(?:" H16 ":){0,5}" H16 ")?::" H16 "|(?:(?:" H16 ":){0,6}" H16 ")?::)"
/* RFC 3986; `u`: further characters that stand for themselves (RFC 3987) */
#define PCT "%[0-9A-Fa-f]{2}"
#define PCHAR(u) "(?:[A-Za-z0-9._~!$&'()*+,;=:@" u "-]|" PCT ")"
#define QUERY(u) "(?:\\?(?:" PCHAR(u) "|[/?])*)?(?:#(?:" PCHAR(u) "|[/?])*)?"
#define REGNAME(u) "(?:[A-Za-z0-9._~!$&'()*+,;=" u "-]|" PCT ")*"
#define AUTHORITY(u) "(?:(?:[A-Za-z0-9._~!$&'()*+,;=:" u "-]|" PCT ")*@)?(?:\\[" IPV6 "\\]|" REGNAME(u) ")(?::[0-9]{0,5})?"
#define ABEMPTY(u) "(?:/" PCHAR(u) "*)*"
#define PATH(u, first) "(?://" AUTHORITY(u) ABEMPTY(u) "|/(?:" PCHAR(u) "+" ABEMPTY(u) ")?|" first "+" ABEMPTY(u) ")?"
#define URI(u) "[A-Za-z][A-Za-z0-9+.-]*:" PATH(u, PCHAR(u)) QUERY(u)
#define NOCOLON(u) "(?:[A-Za-z0-9._~!$&'()*+,;=@" u "-]|" PCT ")"
#define REFERENCE(u) "(?:" URI(u) "|" PATH(u, NOCOLON(u)) QUERY(u) ")"
/* RFC 6570 */
#define VARCHAR "(?:[A-Za-z0-9_]|" PCT ")"
#define VARSPEC VARCHAR "(?:\\.?" VARCHAR ")*(?::[1-9][0-9]{0,3}|\\*)?"
#define TEMPLATE "(?:[^\\x00-\\x20\"'%<>\\\\^`{|}\\x7f]|" PCT "|\\{[+#./;?&=,!@|]?" VARSPEC "(?:," VARSPEC ")*\\})*"
#define UUID "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
/* RFC 6901 */
#define POINTER "(?:/(?:[^/~]|~[01])*)*"

static const struct {
    const char *name, *regex;
    uint32_t max; /* characters, 0: no bound of its own */
} formats[] = {
    {"date-time", DATE "[Tt]" TIME, 0}, {"date", DATE, 0}, {"time", TIME, 0}, {"duration", DURATION, 0},
    {"email", EMAIL, 254}, {"idn-email", IDN_EMAIL, 254}, {"hostname", HOST, 253}, {"idn-hostname", HOST, 253},
    {"ipv4", IPV4, 0}, {"ip-address", IPV4, 0}, {"ipv6", IPV6, 0}, {"uri", URI(""), 0}, {"uri-reference", REFERENCE(""), 0},
    {"iri", URI(UCS), 0}, {"iri-reference", REFERENCE(UCS), 0}, {"uri-template", TEMPLATE, 0}, {"uuid", UUID, 0},
    {"json-pointer", POINTER, 0}, {"relative-json-pointer", "(?:0|[1-9][0-9]{0,8})(?:#|" POINTER ")", 0},
};

const char *qn_s_format(const char *name, size_t n, uint32_t *max) {
    for (size_t i = 0; name && i < sizeof formats / sizeof *formats; i++) {
        if (strlen(formats[i].name) != n || memcmp(formats[i].name, name, n) != 0) continue;
        if (max) *max = formats[i].max;
        return formats[i].regex;
    }
    return NULL;
}
