/* What the server's half (rpc.c) and the client's half (rpc_client.c) of serving/rpc.h share. For these two files only. */
#ifndef SERVING_RPC_INTERNAL_H
#define SERVING_RPC_INTERNAL_H

#include <grpc/grpc.h>
#include <grpc/support/time.h>

#include "serving/rpc.h"

/* Once for each ct_rpc_server and channel; grpc_shutdown ends it. */
void ct_rpc_start_grpc(void);
grpc_status_code ct_rpc_code_to_grpc(ct_code code);
ct_code ct_rpc_code_from_grpc(grpc_status_code code);
grpc_arg ct_rpc_integer_arg(const char *key, int value);
/* Splits HOST:PORT; the host may be [v6]. */
CT_MUST_CHECK ct_code ct_rpc_split_address(const char *address, char host[256], int *out_port, ct_status *status);
/* ct_clock_ns to gRPC's clock; INT64_MAX = never. */
gpr_timespec ct_rpc_time(int64_t ns);

#endif
