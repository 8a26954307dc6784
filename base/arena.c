/* Chunks grow with what is there already (by half of it at least), so that their number stays logarithmic and the walk over them in
 * ct_arena_alloc short. */
#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, DEFAULT_CHUNK = 64 * 1024 };

struct ct_arena_chunk {
    struct ct_arena_chunk *next;
    size_t bytes; /* behind the header */
    size_t used;  /* a multiple of ALIGN */
};

_Static_assert(sizeof(struct ct_arena_chunk) <= ALIGN, "the header takes one alignment unit");

static char *chunk_memory(struct ct_arena_chunk *chunk) { return (char *)chunk + ALIGN; }

void ct_arena_init(ct_arena *arena, size_t chunk_bytes) {
    arena->chunks = NULL;
    arena->chunk_bytes = chunk_bytes ? chunk_bytes : DEFAULT_CHUNK;
}

void ct_arena_deinit(ct_arena *arena) {
    struct ct_arena_chunk *chunk = arena->chunks;
    while (chunk) {
        struct ct_arena_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    arena->chunks = NULL;
}

void ct_arena_reset(ct_arena *arena) {
    for (struct ct_arena_chunk *chunk = arena->chunks; chunk; chunk = chunk->next) chunk->used = 0;
}

void *ct_arena_alloc(ct_arena *arena, size_t bytes) {
    if (bytes > SIZE_MAX / 4) return NULL;
    const size_t need = bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    size_t total = 0;
    for (struct ct_arena_chunk *chunk = arena->chunks; chunk; chunk = chunk->next) {
        if (chunk->bytes - chunk->used >= need) {
            void *memory = chunk_memory(chunk) + chunk->used;
            chunk->used += need;
            return memory;
        }
        total += chunk->bytes;
    }
    size_t size = arena->chunk_bytes;
    if (size < total / 2) size = total / 2;
    if (size < need) size = need;
    size = (size + ALIGN - 1) / ALIGN * ALIGN;
    struct ct_arena_chunk *chunk = aligned_alloc(ALIGN, ALIGN + size);
    if (!chunk) return NULL;
    *chunk = (struct ct_arena_chunk){.next = arena->chunks, .bytes = size, .used = need};
    arena->chunks = chunk;
    return chunk_memory(chunk);
}

void *ct_arena_zalloc(ct_arena *arena, size_t count, size_t bytes_each) {
    size_t bytes;
    if (__builtin_mul_overflow(count, bytes_each, &bytes)) return NULL;
    void *memory = ct_arena_alloc(arena, bytes);
    if (memory) memset(memory, 0, bytes);
    return memory;
}

char *ct_arena_strndup(ct_arena *arena, const char *text, size_t bytes) {
    if (bytes == SIZE_MAX) return NULL;
    char *copy = ct_arena_alloc(arena, bytes + 1);
    if (!copy) return NULL;
    if (bytes) memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    return copy;
}

size_t ct_arena_bytes(const ct_arena *arena) {
    size_t bytes = 0;
    for (const struct ct_arena_chunk *chunk = arena->chunks; chunk; chunk = chunk->next) bytes += ALIGN + chunk->bytes;
    return bytes;
}
