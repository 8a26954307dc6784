/* Arena: memory that is freed all at once. One arena for a step, a request or a parsed file; ct_arena_reset keeps the chunks, so a
 * warm arena allocates nothing. Not for several threads at once. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/status.h"

typedef struct ct_arena {
    struct ct_arena_chunk *chunks; /* newest first */
    size_t chunk_bytes;
} ct_arena;

void ct_arena_init(ct_arena *arena, size_t chunk_bytes /* 0 = 64 KiB */);
void ct_arena_deinit(ct_arena *arena);
void ct_arena_reset(ct_arena *arena);                                    /* all memory given out becomes free; chunks are kept */
void *ct_arena_alloc(ct_arena *arena, size_t bytes);                     /* 64-byte aligned, not zeroed; NULL when out of memory */
void *ct_arena_zalloc(ct_arena *arena, size_t count, size_t bytes_each); /* zeroed; NULL on overflow or when out of memory */
char *ct_arena_strndup(ct_arena *arena, const char *text, size_t bytes); /* NUL-terminated; NULL when out of memory */
size_t ct_arena_bytes(const ct_arena *arena);                            /* what the chunks take */

#endif
