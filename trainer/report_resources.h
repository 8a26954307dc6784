/* Private to trainer/: files that the build puts into the program (trainer/BUILD). */
#ifndef TRAINER_REPORT_RESOURCES_H
#define TRAINER_REPORT_RESOURCES_H

#include <stddef.h>

extern const unsigned char ct_report_page[], ct_page_style[];
extern const size_t ct_report_page_bytes, ct_page_style_bytes;

#endif
