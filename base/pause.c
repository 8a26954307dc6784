#include "base/pause.h"

#include <time.h>

#include "base/clock.h"

static _Thread_local const ct_pauses *mine;
static _Thread_local int64_t worked_since_ns;

void ct_pauses_set(const ct_pauses *pauses) { mine = pauses; }

const ct_pauses *ct_pauses_get(void) { return mine; }

void ct_pause_point(void) {
    if (!mine) return;
    const int64_t now = ct_clock_ns();
    if (now - worked_since_ns < CT_PAUSE_WORK_NS) return;
    worked_since_ns = now;
    if (!mine->wanted || !mine->wanted(mine->context)) return;
    const struct timespec pause = {.tv_nsec = CT_PAUSE_NS};
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    worked_since_ns = ct_clock_ns();
}

ct_code ct_pause_check(ct_status *status) {
    ct_pause_point();
    return mine && mine->given_up && atomic_load(mine->given_up) ? ct_fail(status, CT_CANCELLED, "given up in the middle") : CT_OK;
}
