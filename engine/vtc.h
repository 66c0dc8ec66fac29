/* Fair share between tenants by virtual token counters (Sheng et al., "Fairness in Serving Large Language Models", OSDI
 * 2024, algorithm 2): each tenant's counter grows by the tokens it was served, whoever waits with the smallest one is
 * next, and a tenant that comes back is lifted to the smallest of those present, so that idling saves nothing up.
 *
 * A bounded table: `n_active` tenants can be present at once and the 256 that left last are remembered.
 * Thread: engine. No allocation after open. */
#ifndef QN_VTC_H
#define QN_VTC_H

#include <stdint.h>

#include "engine/base/err.h"

enum { QN_VTC_INPUT = 1, QN_VTC_OUTPUT = 2 }; /* what a token costs (the paper's weights) */

struct qn_vtc;

int qn_vtc_open(struct qn_vtc **out, int n_active);
void qn_vtc_close(struct qn_vtc *v);
/* One more request of this tenant is present; returns the tenant's index, valid until as many leave(). */
int qn_vtc_join(struct qn_vtc *v, uint64_t tenant);
void qn_vtc_leave(struct qn_vtc *v, int index);
void qn_vtc_charge(struct qn_vtc *v, int index, uint64_t cost);
uint64_t qn_vtc_counter(const struct qn_vtc *v, int index);

#endif
