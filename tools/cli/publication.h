/* What verify and inspect say of deltas and publish folders (model/publication.h). */
#ifndef TOOLS_CLI_PUBLICATION_H
#define TOOLS_CLI_PUBLICATION_H

#include <jansson.h>

#include "base/hash.h"
#include "base/status.h"

/* All checksums of a delta; the digest of the model that it leads to. */
CT_MUST_CHECK ct_code ct_verify_delta(const char *path, char out_digest[CT_DIGEST_HEX_BYTES], ct_status *status);
/* Reads the first base, takes it on by all deltas, and compares with each base on the way and with what the last delta says; the digest of
 * the model in the end. */
CT_MUST_CHECK ct_code ct_verify_publication(const char *folder, char out_digest[CT_DIGEST_HEX_BYTES], ct_status *status);
/* What `inspect` prints; the caller's. */
CT_MUST_CHECK ct_code ct_describe_delta(const char *path, json_t **out_json, ct_status *status);
CT_MUST_CHECK ct_code ct_describe_publication(const char *folder, json_t **out_json, ct_status *status);

#endif
