/* Private to data/: the key of a token, in line, as it is half of the work of reading a log. */
#ifndef DATA_KEY_H
#define DATA_KEY_H

#include <stddef.h>
#include <stdint.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* ct_field_key of a text token, by its field's salt: ct_hash64. */
static inline uint64_t ct_key_of_salt(uint64_t salt, const char *token, size_t bytes) { return XXH3_64bits_withSeed(token, bytes, salt); }

#endif
