/* libmicrohttpd answers what it refuses by itself with HTML. It makes those replies with MHD_create_response_from_buffer,
 * found in the executable first; nothing of ours calls that function, so whatever comes here is such a page and leaves as
 * the OpenAI object instead. With the gate in front (gate.h) the library has nothing left to refuse but a lack of memory:
 * this is the second lock on that door. */
#include <microhttpd.h>
#include <string.h>

struct MHD_Response *MHD_create_response_from_buffer(size_t n, void *page, enum MHD_ResponseMemoryMode mode) {
    static char body[] = "{\"error\":{\"message\":\"The request could not be read.\",\"type\":\"invalid_request_error\","
                         "\"param\":null,\"code\":\"invalid_request\"}}";
    (void)n, (void)page, (void)mode; /* the library's pages are constants */
    struct MHD_Response *r = MHD_create_response_from_buffer_with_free_callback(sizeof body - 1, body, NULL);
    if (r) MHD_add_response_header(r, "Content-Type", "application/json");
    return r;
}
