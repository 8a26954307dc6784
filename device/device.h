/* A device: memory, streams, events, copies and graphs behind one table of functions. `cpu` fills it here; `cuda` will, in a library that
 * is opened at run time. Entries marked optional may be NULL. All calls return at once except stream_synchronize and event_synchronize;
 * on the CPU work is done in the call. */
#ifndef DEVICE_DEVICE_H
#define DEVICE_DEVICE_H

#include "base/status.h"

typedef struct ct_device ct_device;
typedef struct ct_stream ct_stream;
typedef struct ct_event ct_event;
typedef struct ct_graph ct_graph;

typedef enum ct_memory_kind {
    CT_MEMORY_DEVICE, /* on the device; not for the host to touch unless host_visible */
    CT_MEMORY_PINNED  /* on the host, fast to copy from and to */
} ct_memory_kind;

typedef struct ct_device_info {
    char name[64];            /* "cpu", "NVIDIA H100 ..." */
    char instruction_set[32]; /* "avx512_core_bf16", "sm_90" */
    uint64_t memory_bytes;    /* all there is */
    uint32_t processors;      /* cores or multiprocessors */
    bool host_visible;        /* device memory can be read and written by the host */
    bool bf16;                /* products of bf16 in hardware */
} ct_device_info;

typedef struct ct_device_ops {
    const char *kind; /* "cpu", "cuda" */
    ct_code (*info)(ct_device *device, ct_device_info *out_info, ct_status *status);
    /* Zeroed, aligned to 2 MiB and backed by huge pages where the system gives them when bytes >= 2 MiB, else to 64 bytes. */
    ct_code (*memory_alloc)(ct_device *device, ct_memory_kind kind, size_t bytes, void **out_memory, ct_status *status);
    void (*memory_free)(ct_device *device, ct_memory_kind kind, void *memory, size_t bytes); /* NULL is fine */
    ct_code (*stream_create)(ct_device *device, ct_stream **out_stream, ct_status *status);
    void (*stream_destroy)(ct_device *device, ct_stream *stream);
    ct_code (*stream_synchronize)(ct_device *device, ct_stream *stream, ct_status *status);
    ct_code (*copy)(ct_device *device, ct_stream *stream, void *to, const void *from, size_t bytes, ct_status *status); /* any direction */
    ct_code (*fill)(ct_device *device, ct_stream *stream, void *to, uint8_t byte, size_t bytes, ct_status *status);
    ct_code (*event_create)(ct_device *device, ct_event **out_event, ct_status *status);
    void (*event_destroy)(ct_device *device, ct_event *event);
    ct_code (*event_record)(ct_device *device, ct_event *event, ct_stream *stream, ct_status *status);
    ct_code (*event_wait)(ct_device *device, ct_event *event, ct_stream *stream, ct_status *status); /* the stream waits */
    ct_code (*event_synchronize)(ct_device *device, ct_event *event, ct_status *status);             /* the host waits */
    /* Optional: recorded work that is launched as one. */
    ct_code (*graph_begin)(ct_device *device, ct_stream *stream, ct_status *status);
    ct_code (*graph_end)(ct_device *device, ct_stream *stream, ct_graph **out_graph, ct_status *status);
    ct_code (*graph_launch)(ct_device *device, ct_graph *graph, ct_stream *stream, ct_status *status);
    void (*graph_destroy)(ct_device *device, ct_graph *graph);
} ct_device_ops;

struct ct_device {
    const ct_device_ops *ops;
    void *self; /* the filling's own */
};

/* The CPU as a device; one for the process, never freed. */
ct_device *ct_device_cpu(void);

#endif
