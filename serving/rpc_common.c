/* What both halves of rpc.h need: codes, addresses, times. */
#include <grpc/support/log.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "serving/rpc_internal.h"

static const struct {
    ct_code code;
    grpc_status_code grpc;
} STATUS_MAP[] = {
    {CT_OK, GRPC_STATUS_OK},
    {CT_INVALID, GRPC_STATUS_INVALID_ARGUMENT},
    {CT_NOT_FOUND, GRPC_STATUS_NOT_FOUND},
    {CT_EXHAUSTED, GRPC_STATUS_RESOURCE_EXHAUSTED},
    {CT_UNAVAILABLE, GRPC_STATUS_UNAVAILABLE},
    {CT_DEADLINE, GRPC_STATUS_DEADLINE_EXCEEDED},
    {CT_CANCELLED, GRPC_STATUS_CANCELLED},
    {CT_UNSUPPORTED, GRPC_STATUS_UNIMPLEMENTED},
};

grpc_status_code ct_rpc_code_to_grpc(ct_code code) {
    for (size_t i = 0; i < sizeof STATUS_MAP / sizeof *STATUS_MAP; i++)
        if (STATUS_MAP[i].code == code) return STATUS_MAP[i].grpc;
    return GRPC_STATUS_INTERNAL;
}

ct_code ct_rpc_code_from_grpc(grpc_status_code code) {
    for (size_t i = 0; i < sizeof STATUS_MAP / sizeof *STATUS_MAP; i++)
        if (STATUS_MAP[i].grpc == code) return STATUS_MAP[i].code;
    return code == GRPC_STATUS_UNAUTHENTICATED ? CT_INVALID : CT_INTERNAL;
}

const char *ct_rpc_code_name(ct_code code) {
    switch (ct_rpc_code_to_grpc(code)) {
        case GRPC_STATUS_OK:
            return "OK";
        case GRPC_STATUS_INVALID_ARGUMENT:
            return "INVALID_ARGUMENT";
        case GRPC_STATUS_NOT_FOUND:
            return "NOT_FOUND";
        case GRPC_STATUS_RESOURCE_EXHAUSTED:
            return "RESOURCE_EXHAUSTED";
        case GRPC_STATUS_UNAVAILABLE:
            return "UNAVAILABLE";
        case GRPC_STATUS_DEADLINE_EXCEEDED:
            return "DEADLINE_EXCEEDED";
        case GRPC_STATUS_CANCELLED:
            return "CANCELLED";
        case GRPC_STATUS_UNIMPLEMENTED:
            return "UNIMPLEMENTED";
        default:
            return "INTERNAL";
    }
}

static void no_log(gpr_log_func_args *arguments) { (void)arguments; }

/* gRPC prints its troubles on standard error; a library does not print. What matters comes back as a status. */
void ct_rpc_start_grpc(void) {
    gpr_set_log_function(no_log);
    grpc_init();
}

grpc_arg ct_rpc_integer_arg(const char *key, int value) {
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = value};
}

ct_code ct_rpc_split_address(const char *address, char host[256], int *out_port, ct_status *status) {
    const char *colon = strrchr(address, ':');
    int64_t port = -1;
    if (!colon || !ct_parse_i64(colon + 1, strlen(colon + 1), &port) || port < 0 || port > 65535)
        return ct_fail(status, CT_INVALID, "address \"%s\" is not HOST:PORT with a port from 0 to 65535", address);
    const char *begin = address;
    size_t bytes = (size_t)(colon - address);
    const bool bracketed = bytes >= 2 && begin[0] == '[' && begin[bytes - 1] == ']';
    if (bracketed) {
        begin++;
        bytes -= 2;
    }
    if (bytes == 0 || bytes > 255 || (!bracketed && memchr(begin, ':', bytes)))
        return ct_fail(status, CT_INVALID, "address \"%s\" is not HOST:PORT; IPv6 is [ADDRESS]:PORT", address);
    memcpy(host, begin, bytes);
    host[bytes] = '\0';
    *out_port = (int)port;
    return CT_OK;
}

gpr_timespec ct_rpc_time(int64_t ns) {
    if (ns == INT64_MAX) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    if (ns == 0) return gpr_inf_past(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(ns - ct_clock_ns(), GPR_TIMESPAN));
}
