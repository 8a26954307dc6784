/* Private to experiment/: files that the build puts into the program (experiment/BUILD). */
#ifndef EXPERIMENT_COMPARE_RESOURCES_H
#define EXPERIMENT_COMPARE_RESOURCES_H

#include <stddef.h>

extern const unsigned char ct_compare_page[];
extern const size_t ct_compare_page_bytes;

#endif
