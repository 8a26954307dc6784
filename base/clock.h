/* Clocks. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

int64_t ct_clock_ns(void);        /* monotonic */
int64_t ct_clock_thread_ns(void); /* processor time of the calling thread */
int64_t ct_clock_unix_ms(void);   /* wall clock */

#endif
