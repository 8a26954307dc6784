/* Memory that is a file's: for what is too large for a limit on memory, and seldom changed. Its pages are the kernel's, which writes them
 * to the disk and drops them as it likes, so they are no anonymous memory; what is read again comes back from the disk. */
#ifndef BASE_MAPPED_H
#define BASE_MAPPED_H

#include "base/status.h"

/* A file without a name, in the folder that `beside` lies in, so that nothing of it stays behind, however the process ends. */
typedef struct ct_mapped ct_mapped;
CT_MUST_CHECK ct_code ct_mapped_create(const char *beside, ct_mapped **out_mapped, ct_status *status);
void ct_mapped_destroy(ct_mapped *mapped); /* what was taken stays until it is given back; NULL is fine */
/* Zeroed, whole pages, for reading at random. The disk has room for all of it, or CT_EXHAUSTED. Any thread. */
CT_MUST_CHECK ct_code ct_mapped_take(ct_mapped *mapped, size_t bytes, void **out_memory, ct_status *status);
void ct_mapped_give(void *memory, size_t bytes); /* NULL is fine */

#endif
