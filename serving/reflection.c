/* Server reflection, v1 and v1alpha (https://github.com/grpc/grpc/blob/master/doc/server-reflection.md): what methods and messages there
 * are, so that public tools can list and call them. The build embeds the descriptors of our .proto files (proto/descriptors.h); the few
 * fields of a FileDescriptorProto that matter are read by hand: every named thing in it is a message whose field 1 is its name. */
#include <string.h>

#include "proto/descriptors.h"
#include "proto/reflection.pb-c.h"
#include "serving/server_internal.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;

enum { MAX_FILES = 16, MAX_SERVICES = 16, FIELD_NAME = 1, FILE_PACKAGE = 2, FILE_SERVICE = 6 };

typedef struct bytes {
    const uint8_t *data;
    size_t count;
} bytes;

/* --- protobuf's wire form, of what our own compiler wrote --- */

static uint64_t varint(bytes *at) {
    uint64_t value = 0;
    for (unsigned shift = 0; at->count && shift < 64; shift += 7) {
        const uint8_t byte = *at->data++;
        at->count--;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) break;
    }
    return value;
}

/* The next field; content is empty where it is a varint. */
static bool next_field(bytes *at, unsigned *out_number, bytes *out_content) {
    if (at->count == 0) return false;
    const uint64_t tag = varint(at), value = varint(at);
    *out_number = (unsigned)(tag >> 3);
    *out_content = (bytes){at->data, 0};
    if ((tag & 7) != 2) return true;
    out_content->count = value < at->count ? (size_t)value : at->count;
    at->data += out_content->count;
    at->count -= out_content->count;
    return true;
}

static bytes field(bytes message, unsigned wanted) {
    unsigned number = 0;
    bytes content;
    while (next_field(&message, &number, &content))
        if (number == wanted) return content;
    return (bytes){NULL, 0};
}

/* Is `symbol` the message's name, or that with the name of something in it behind a dot? */
static bool holds(bytes message, bytes symbol) {
    const bytes name = field(message, FIELD_NAME);
    if (name.count == 0 || name.count > symbol.count || memcmp(name.data, symbol.data, name.count) != 0) return false;
    if (name.count == symbol.count) return true;
    if (symbol.data[name.count] != '.') return false;
    const bytes rest = {symbol.data + name.count + 1, symbol.count - name.count - 1};
    unsigned number = 0;
    bytes inner;
    while (next_field(&message, &number, &inner))
        if (number != FIELD_NAME && inner.count && holds(inner, rest)) return true;
    return false;
}

static size_t list_files(bytes out[MAX_FILES]) {
    bytes all = {ct_proto_descriptors, ct_proto_descriptors_bytes};
    size_t count = 0;
    unsigned number = 0;
    while (count < MAX_FILES && next_field(&all, &number, &out[count])) count++;
    return count;
}

/* Is `symbol` something of this file, by its full name? */
static bool file_holds(bytes file, bytes symbol) {
    const bytes package = field(file, FILE_PACKAGE);
    if (symbol.count <= package.count + 1 || memcmp(symbol.data, package.data, package.count) != 0 || symbol.data[package.count] != '.')
        return false;
    const bytes rest = {symbol.data + package.count + 1, symbol.count - package.count - 1};
    unsigned number = 0;
    bytes inner;
    while (next_field(&file, &number, &inner))
        if (number >= 4 && number <= 7 && holds(inner, rest)) return true; /* messages, enums, services, extensions */
    return false;
}

static bool is_named(bytes file, bytes name) {
    const bytes own = field(file, FIELD_NAME);
    return own.count == name.count && memcmp(own.data, name.data, name.count) == 0;
}

/* --- answers: memory is the arena's --- */

static ct_code answer_files(ct_arena *arena, bytes wanted, bool (*matches)(bytes, bytes), reflection_response *out, ct_status *status) {
    bytes files[MAX_FILES];
    const size_t count = list_files(files);
    for (size_t i = 0; i < count; i++) {
        if (!matches(files[i], wanted)) continue;
        Grpc__Reflection__V1__FileDescriptorResponse *answer = ct_arena_alloc(arena, sizeof *answer);
        ProtobufCBinaryData *list = ct_arena_alloc(arena, sizeof *list);
        if (!answer || !list) return ct_fail_memory(status, sizeof *answer, "an answer");
        grpc__reflection__v1__file_descriptor_response__init(answer);
        *list = (ProtobufCBinaryData){files[i].count, (uint8_t *)(uintptr_t)files[i].data};
        answer->file_descriptor_proto = list;
        answer->n_file_descriptor_proto = 1;
        out->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
        out->file_descriptor_response = answer;
        return CT_OK;
    }
    char shown[80];
    return ct_fail(status, CT_NOT_FOUND, "nothing here is called \"%s\"",
                   ct_text_show((const char *)wanted.data, wanted.count, shown, sizeof shown));
}

static ct_code answer_services(ct_arena *arena, reflection_response *out, ct_status *status) {
    bytes files[MAX_FILES];
    const size_t count = list_files(files);
    Grpc__Reflection__V1__ListServiceResponse *answer = ct_arena_alloc(arena, sizeof *answer);
    Grpc__Reflection__V1__ServiceResponse *services = ct_arena_alloc(arena, MAX_SERVICES * sizeof *services);
    Grpc__Reflection__V1__ServiceResponse **list = ct_arena_alloc(arena, MAX_SERVICES * sizeof(void *));
    if (!answer || !services || !list) return ct_fail_memory(status, sizeof *services, "an answer");
    grpc__reflection__v1__list_service_response__init(answer);
    for (size_t i = 0; i < count; i++) {
        const bytes package = field(files[i], FILE_PACKAGE);
        bytes at = files[i], content;
        unsigned number = 0;
        while (next_field(&at, &number, &content)) {
            if (number != FILE_SERVICE || answer->n_service == MAX_SERVICES) continue;
            const bytes name = field(content, FIELD_NAME);
            uint8_t *text = ct_arena_alloc(arena, package.count + 1 + name.count);
            if (!text) return ct_fail_memory(status, name.count, "an answer");
            memcpy(text, package.data, package.count);
            text[package.count] = '.';
            memcpy(text + package.count + 1, name.data, name.count);
            Grpc__Reflection__V1__ServiceResponse *service = &services[answer->n_service];
            grpc__reflection__v1__service_response__init(service);
            service->name = (ProtobufCBinaryData){package.count + 1 + name.count, text};
            list[answer->n_service++] = service;
        }
    }
    answer->service = list;
    out->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    out->list_services_response = answer;
    return CT_OK;
}

static ct_code answer_request(ct_arena *arena, const reflection_request *request, reflection_response *out, ct_status *status) {
    switch (request->message_request_case) {
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
            return answer_files(arena, (bytes){request->file_by_filename.data, request->file_by_filename.len}, is_named, out, status);
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
            return answer_files(arena, (bytes){request->file_containing_symbol.data, request->file_containing_symbol.len}, file_holds, out,
                                status);
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
            return answer_services(arena, out, status);
        default:
            return ct_fail(status, CT_NOT_FOUND, "there are no extensions here");
    }
}

static ct_code reply_to(ct_arena *arena, ct_rpc_call *call, ct_status *status) {
    size_t count = 0;
    const uint8_t *data = ct_rpc_call_request(call, &count);
    ProtobufCMessage *message = NULL;
    CT_TRY(ct_message_unpack(arena, &grpc__reflection__v1__server_reflection_request__descriptor, data, count, "ServerReflectionRequest",
                             &message, status));
    reflection_request *request = (reflection_request *)message;
    reflection_response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    response.valid_host = request->host;
    response.original_request = request;
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    const ct_code code = answer_request(arena, request, &response, status);
    if (code == CT_NOT_FOUND) {
        error.error_code = 5; /* gRPC's NOT_FOUND */
        error.error_message = ct_text_data(status->message);
        response.message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
        response.error_response = &error;
    } else if (code != CT_OK) {
        return code;
    }
    uint8_t *out = ct_rpc_call_reserve(call, grpc__reflection__v1__server_reflection_response__get_packed_size(&response));
    (void)grpc__reflection__v1__server_reflection_response__pack(&response, out);
    return CT_OK;
}

/* --- the stream: a message, its answer, the next message --- */

static void reflection_message(void *context, void *worker, ct_rpc_call *call) {
    ct_worker *self = worker;
    ct_status status = CT_STATUS_INIT;
    (void)context;
    if (reply_to(&self->arena, call, &status) == CT_OK)
        ct_rpc_stream_write(call);
    else
        ct_rpc_call_fail(call, &status);
    ct_arena_reset(&self->arena);
}

static void reflection_end(void *context, void *worker, ct_rpc_call *call) {
    (void)context;
    (void)worker;
    ct_rpc_call_reply(call);
}

static void reflection_written(void *context, void *worker, ct_rpc_call *call) {
    (void)context;
    (void)worker;
    ct_rpc_stream_read(call);
}

static void reflection_closed(void *context, void *worker, ct_rpc_call *call) {
    (void)context;
    (void)worker;
    (void)call;
}

const ct_rpc_stream_fns ct_serve_reflection = {reflection_message, reflection_end, reflection_written, reflection_closed};
