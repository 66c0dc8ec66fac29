/* The tables of request members (request_table.c), for request.c and the tests. */
#ifndef QN_REQUEST_TABLE_H
#define QN_REQUEST_TABLE_H

#include "api/request.h"

extern const struct qn_field qn_request_table[], qn_stream_options_table[], qn_own_table[], qn_structured_table[], qn_repetition_table[];
extern const size_t qn_request_rows, qn_stream_options_rows, qn_own_rows, qn_structured_rows, qn_repetition_rows;

#endif
