/* What the sanitizers must know, linked into every program of --config=asan and --config=tsan (.bazelrc). Our code is instrumented,
 * Debian's libraries are not: what happens inside of them can't be judged. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__lsan_default_suppressions(void);
const char *__tsan_default_options(void);
const char *__tsan_default_suppressions(void);

const char *__asan_default_options(void) { return "detect_leaks=1:detect_stack_use_after_return=1:abort_on_error=1"; }
const char *__ubsan_default_options(void) { return "print_stacktrace=1:halt_on_error=1"; }

const char *__lsan_default_suppressions(void) {
    return "leak:libcares.so\n"
           "leak:libcrypto.so\n" /* its state of a gRPC thread that ends while the program does */
           "leak:libgrpc.so\n"
           "leak:libgomp.so\n"
           "leak:libdnnl.so\n"
           "leak:librocksdb.so\n";
}

const char *__tsan_default_options(void) { return "halt_on_error=1:second_deadlock_stack=1:report_signal_unsafe=0"; }

const char *__tsan_default_suppressions(void) {
    return "called_from_lib:libgrpc.so\n"
           "called_from_lib:libgpr.so\n"
           "called_from_lib:librocksdb.so\n"
           "called_from_lib:libdnnl.so\n"
           "called_from_lib:libgomp.so\n"
           "race:libabsl_\n"
           "race:libcrypto.so\n"
           "race:libssl.so\n"
           "race:libupb.so\n"
           "race:libcares.so\n"
           "race:libaddress_sorting.so\n"
           "race:libmicrohttpd.so\n"
           "race:ct_rpc_caller_next\n" /* reads what gRPC's threads wrote */
           "race:ct_live_close\n"      /* RocksDB's threads have read the day that expires, and have ended: how it waits for them is not seen */
           "race:libstdc++.so\n"
           "race:libgrpc.so\n"
           "race:librocksdb.so\n"
           "race:libdnnl.so\n"
           "race:libgomp.so\n"
           "mutex:libgrpc.so\n"
           "deadlock:libgrpc.so\n"
           "deadlock:librocksdb.so\n"
           "thread:libgrpc.so\n"
           "thread:librocksdb.so\n";
}
