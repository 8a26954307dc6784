/* Private to experiment/: files that the build puts into the program (experiment/BUILD). */
#ifndef EXPERIMENT_REPORT_RESOURCES_H
#define EXPERIMENT_REPORT_RESOURCES_H

#include <stddef.h>

extern const unsigned char ct_compare_page[], ct_online_page[];
extern const size_t ct_compare_page_bytes, ct_online_page_bytes;

#endif
