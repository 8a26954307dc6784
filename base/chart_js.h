/* Chart.js, from Debian's package libjs-chart.js, as it stands in the program: for pages that ask nothing of the network. */
#ifndef BASE_CHART_JS_H
#define BASE_CHART_JS_H

#include <stddef.h>

extern const unsigned char ct_chart_js[];
extern const size_t ct_chart_js_bytes;

#endif
