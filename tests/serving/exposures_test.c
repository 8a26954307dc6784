/* Exposures: what is put comes out as JSON, and floats as the same floats; what finds no room or no disk is counted; the sample is the
 * hash's. */
#include "serving/exposures.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after them */
#include <cmocka.h>

#include "base/clock.h"
#include "base/random.h"
#include "tests/serving/lines.h"
#include "tests/serving/requests.h"

#define MUST(expression, status)                                                      \
    do {                                                                              \
        if ((expression) != CT_OK) fail_msg("%s: %s", #expression, (status).message); \
    } while (0)

static ct_exposures *open_exposures(const char *folder, double sample_rate, size_t buffer_bytes, uint64_t rotate_bytes) {
    ct_status status = CT_STATUS_INIT;
    ct_exposures *exposures = NULL;
    MUST(ct_exposures_open(&(ct_exposures_options){folder, sample_rate, buffer_bytes, rotate_bytes, 1000000000, NULL}, &exposures, &status),
         status);
    return exposures;
}

static void close_exposures(ct_exposures *exposures, ct_exposures_stats *out_stats) {
    ct_status status = CT_STATUS_INIT;
    MUST(ct_exposures_close(exposures, out_stats, &status), status);
}

/* Until as many were written or dropped. */
static ct_exposures_stats wait_for(ct_exposures *exposures, uint64_t count) {
    ct_exposures_stats stats;
    do {
        (void)sched_yield();
        ct_exposures_stats_get(exposures, &stats);
    } while (stats.written + stats.dropped_unwritable < count);
    return stats;
}

static void put_small(ct_exposures *exposures, const char *id) {
    const ct_exposure e = {.request_id = id,
                           .request_id_bytes = strlen(id),
                           .experiment = "",
                           .arm = "",
                           .fallback_arm = "",
                           .how = CT_ASSIGN_NONE,
                           .model = "m",
                           .version = "v"};
    ct_exposures_put(exposures, &e);
}

static void a_request_as_it_came(void **state) {
    ct_exposures *exposures = open_exposures(*state, 0.25, 1 << 20, 1 << 20);
    test_request r;
    test_request_init(&r);
    r.message.unit = ct_text_data("\xc3\xa9lo\xc3\xafse \"1\" \\\t");
    test_token(test_add(&r, true, "user"), "u");
    test_column *text = test_add(&r, false, "item"), *list = test_add(&r, false, "likes"), *number = test_add(&r, false, "price");
    test_token(text, "");
    test_token(text, "\xff\x01");
    test_token(text, "a\nb\x01\x7f/");
    for (int i = 0; i < 3; i++) test_length(list, (uint32_t)i);
    for (int i = 0; i < 3; i++) test_integer(list, i == 0 ? INT64_MIN : i == 1 ? INT64_MAX : -7);
    const float numbers[] = {0.1f, NAN, 3.4028235e38f};
    for (int i = 0; i < 3; i++) test_number(number, numbers[i]);
    size_t bytes = 0;
    uint8_t *packed = test_pack(&r, &bytes);
    const float click[] = {0x1.fffffep-2f, 1e-45f, 0.30000001f}, second[] = {0, 1, 0.5f}, odds[] = {-1.25f, 0.1f, 1e-7f}, context[] = {7};
    const int64_t before = ct_clock_unix_ms();
    ct_exposure e = {.latency_ns = 1234567,
                     .request_id = "id-1",
                     .request_id_bytes = 4,
                     .experiment = "ranker",
                     .arm = "old",
                     .fallback_arm = "new",
                     .how = CT_ASSIGN_FALLBACK,
                     .model = "model a",
                     .version = "0123",
                     .request = packed,
                     .request_bytes = bytes,
                     .rows = 3,
                     .output_count = 2,
                     .outputs = {{"click", click}, {"second", second}},
                     .derived_count = 2,
                     .derived = {{"item#odds", odds, 3}, {"user#odds", context, 1}}};
    ct_exposures_put(exposures, &e);
    e = (ct_exposure){.code = CT_DEADLINE,
                      .request_id = "id-2",
                      .request_id_bytes = 4,
                      .experiment = "ranker",
                      .arm = "old",
                      .fallback_arm = "",
                      .how = CT_ASSIGN_DRAWN,
                      .model = "model a",
                      .version = "0123",
                      .request = packed,
                      .request_bytes = bytes};
    ct_exposures_put(exposures, &e);
    ct_exposures_stats stats;
    close_exposures(exposures, &stats);
    const int64_t after = ct_clock_unix_ms();
    assert_int_equal(stats.written, 2);
    assert_int_equal(stats.dropped_full + stats.dropped_unwritable + stats.failures, 0);

    size_t files = 0, parts = 0;
    json_t *lines = lines_of(*state, &files, &parts);
    assert_int_equal(json_array_size(lines), 2);
    assert_true(files == 1 && parts == 0);
    json_t *line = json_array_get(lines, 0);
    assert_in_range(integer_of(line, "time_ms"), before, after);
    assert_int_equal(integer_of(line, "latency_us"), 1234);
    assert_int_equal(integer_of(line, "candidates"), 3);
    assert_true(json_real_value(json_object_get(line, "sample_rate")) == 0.25);
    assert_string_equal(text_of(line, "request_id"), "id-1");
    assert_string_equal(text_of(line, "unit"), "\xc3\xa9lo\xc3\xafse \"1\" \\\t");
    assert_string_equal(text_of(line, "experiment"), "ranker");
    assert_string_equal(text_of(line, "arm"), "old");
    assert_string_equal(text_of(line, "assigned"), "fallback");
    assert_string_equal(text_of(line, "fallback_arm"), "new");
    assert_string_equal(text_of(line, "model"), "model a");
    assert_string_equal(text_of(line, "model_version"), "0123");
    char *context_text = json_dumps(json_object_get(line, "context"), JSON_COMPACT);
    assert_string_equal(context_text, "[{\"name\":\"user\",\"tokens\":[\"u\"]}]");
    free(context_text);
    const json_t *columns = json_object_get(line, "columns");
    char *ids = json_dumps(json_array_get(columns, 0), JSON_COMPACT), *lists = json_dumps(json_array_get(columns, 1), JSON_COMPACT);
    assert_string_equal(ids, "{\"name\":\"item\",\"tokens\":[\"\",{\"hex\":\"ff01\"},\"a\\nb\\u0001\x7f/\"]}");
    assert_string_equal(lists, "{\"name\":\"likes\",\"integers\":[-9223372036854775808,9223372036854775807,-7],\"lengths\":[0,1,2]}");
    free(ids);
    free(lists);
    const json_t *prices = json_object_get(json_array_get(columns, 2), "numbers");
    assert_true((float)json_number_value(json_array_get(prices, 0)) == numbers[0]);
    assert_true(json_is_null(json_array_get(prices, 1)));
    assert_true((float)json_number_value(json_array_get(prices, 2)) == numbers[2]);
    const json_t *scores = json_object_get(line, "scores"), *derived = json_object_get(line, "derived");
    for (size_t i = 0; i < 3; i++) {
        assert_true((float)json_number_value(json_array_get(json_object_get(scores, "click"), i)) == click[i]);
        assert_true((float)json_number_value(json_array_get(json_object_get(scores, "second"), i)) == second[i]);
        assert_true((float)json_number_value(json_array_get(json_object_get(json_array_get(derived, 0), "numbers"), i)) == odds[i]);
    }
    assert_string_equal(text_of(json_array_get(derived, 0), "name"), "item#odds");
    char *of_context = json_dumps(json_array_get(derived, 1), JSON_COMPACT);
    assert_string_equal(of_context, "{\"name\":\"user#odds\",\"numbers\":[7]}");
    free(of_context);
    line = json_array_get(lines, 1);
    assert_string_equal(text_of(line, "error"), "DEADLINE_EXCEEDED");
    assert_string_equal(text_of(line, "assigned"), "bucket");
    assert_string_equal(text_of(line, "unit"), "\xc3\xa9lo\xc3\xafse \"1\" \\\t");
    static const char *const absent[] = {"scores", "columns", "context", "derived", "candidates", "fallback_arm"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) assert_null(json_object_get(line, absent[i]));
    json_decref(lines);
    free(packed);
    test_request_deinit(&r);
}

/* Every float that comes out is the one that went in. */
static void floats_round_trip(void **state) {
    enum { FLOATS = 20000 };
    ct_exposures *exposures = open_exposures(*state, 1, 1 << 20, 1 << 30);
    static float values[FLOATS];
    for (size_t i = 0; i < FLOATS; i++) {
        uint32_t bits = (uint32_t)ct_random_u64(11, CT_PLACE_TEST, 0, i, 0);
        if ((bits >> 23 & 0xff) == 0xff) bits ^= UINT32_C(1) << 30;
        memcpy(&values[i], &bits, 4);
        /* Half of them where probabilities and prices are, at powers of ten and beside them. */
        if (i % 4 == 1) values[i] = (float)(bits >> 8) * 0x1p-24f;
        if (i % 4 == 3) values[i] = nextafterf(powf(10, (float)(i % 40) / 2 - 8), i % 8 == 3 ? 0 : INFINITY) * (i % 3 ? 1.0f : -0.3f);
    }
    ct_exposure e = {.request_id = "",
                     .experiment = "",
                     .arm = "",
                     .fallback_arm = "",
                     .how = CT_ASSIGN_NONE,
                     .model = "",
                     .version = "",
                     .rows = FLOATS,
                     .output_count = 1,
                     .outputs = {{"click", values}}};
    ct_exposures_put(exposures, &e);
    close_exposures(exposures, NULL);
    json_t *lines = lines_of(*state, NULL, NULL);
    const json_t *scores = json_object_get(json_object_get(json_array_get(lines, 0), "scores"), "click");
    assert_int_equal(json_array_size(scores), FLOATS);
    for (size_t i = 0; i < FLOATS; i++) {
        const float back = (float)json_number_value(json_array_get(scores, i));
        assert_memory_equal(&back, &values[i], 4);
    }
    json_decref(lines);
}

static void what_finds_no_room_is_counted(void **state) {
    enum { PUT = 20000 };
    ct_exposures *exposures = open_exposures(*state, 1, 1, 1 << 30); /* the least ring there is */
    for (size_t i = 0; i < PUT; i++) put_small(exposures, "x");
    static float many[10000];
    ct_exposure large = {.request_id = "",
                         .experiment = "",
                         .arm = "",
                         .fallback_arm = "",
                         .how = CT_ASSIGN_NONE,
                         .model = "",
                         .version = "",
                         .rows = 10000,
                         .output_count = 1,
                         .outputs = {{"click", many}}};
    ct_exposures_put(exposures, &large);
    ct_exposures_stats stats;
    close_exposures(exposures, &stats);
    assert_true(stats.written > 0 && stats.dropped_full > 1);
    assert_int_equal(stats.written + stats.dropped_full, PUT + 1);
    assert_int_equal(stats.dropped_unwritable, 0);
    json_t *lines = lines_of(*state, NULL, NULL);
    assert_int_equal(json_array_size(lines), stats.written);
    json_decref(lines);
}

static void what_cannot_be_written_is_counted(void **state) {
    ct_status status = CT_STATUS_INIT;
    char *folder = temp_path(*state, "folder");
    ct_exposures *exposures = open_exposures(folder, 1, 1 << 20, 1);
    MUST(ct_folder_remove(folder, &status), status);
    for (int i = 0; i < 3; i++) put_small(exposures, "lost");
    ct_exposures_stats stats = wait_for(exposures, 3);
    assert_int_equal(stats.dropped_unwritable, 3);
    assert_true(stats.failures >= 1 && strstr(stats.last_failure, folder) != NULL);
    MUST(ct_folder_create(folder, &status), status);
    put_small(exposures, "kept");
    (void)wait_for(exposures, 4);
    close_exposures(exposures, &stats);
    assert_int_equal(stats.written, 1);
    json_t *lines = lines_of(folder, NULL, NULL);
    assert_int_equal(json_array_size(lines), 1);
    assert_string_equal(text_of(json_array_get(lines, 0), "request_id"), "kept");
    json_decref(lines);
    /* Where a file stands in the folder's place, nothing is opened. */
    char *path = temp_path(*state, "file");
    MUST(ct_file_write(path, "x", 1, &status), status);
    ct_exposures *none = NULL;
    assert_int_not_equal(ct_exposures_open(&(ct_exposures_options){path, 1, 1, 1, 1, NULL}, &none, &status), CT_OK);
    assert_non_null(strstr(status.message, path));
    static const double wrong[] = {0, -0.5, 1.01, NAN};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(ct_exposures_open(&(ct_exposures_options){folder, wrong[i], 1, 1, 1, NULL}, &none, &status), CT_INVALID);
    free(path);
    free(folder);
}

/* Written while it runs: a reader finds the line without any end of the server. Rotated by size. */
static void lines_are_there_at_once_and_files_rotate(void **state) {
    ct_exposures *exposures = open_exposures(*state, 1, 1 << 20, 1000);
    put_small(exposures, "first");
    (void)wait_for(exposures, 1);
    size_t files = 0, parts = 0;
    json_t *lines = lines_of(*state, &files, &parts);
    assert_int_equal(json_array_size(lines), 1);
    assert_true(files == 1 && parts == 1);
    json_decref(lines);
    for (uint64_t i = 2; i <= 30; i++) {
        put_small(exposures, "more");
        (void)wait_for(exposures, i);
    }
    close_exposures(exposures, NULL);
    lines = lines_of(*state, &files, &parts);
    assert_int_equal(json_array_size(lines), 30);
    assert_int_equal(parts, 0);
    assert_true(files >= 4 && files <= 10); /* lines have about 200 bytes */
    json_decref(lines);
}

static void the_sample_is_the_hash_of_the_id(void **state) {
    enum { IDS = 100000 };
    char *first = temp_path(*state, "first"), *second = temp_path(*state, "second"), *third = temp_path(*state, "third");
    ct_exposures *tenth = open_exposures(first, 0.1, 1, 1), *fifth = open_exposures(second, 0.2, 1, 1),
                 *all = open_exposures(third, 1, 1, 1);
    size_t in_tenth = 0, in_fifth = 0;
    for (size_t i = 0; i < IDS; i++) {
        char id[CT_MADE_ID_BYTES];
        const size_t bytes = ct_exposures_make_id(all, id);
        const bool is_tenth = ct_exposures_sampled(tenth, id, bytes), is_fifth = ct_exposures_sampled(fifth, id, bytes);
        in_tenth += is_tenth;
        in_fifth += is_fifth;
        assert_true(!is_tenth || is_fifth); /* a larger sample holds the smaller one */
        assert_true(ct_exposures_sampled(all, id, bytes));
        assert_int_equal(is_tenth, ct_exposures_sampled(tenth, id, bytes));
    }
    /* Five standard deviations of a binomial. */
    assert_true(fabs((double)in_tenth - 0.1 * IDS) < 5 * sqrt(IDS * 0.1 * 0.9));
    assert_true(fabs((double)in_fifth - 0.2 * IDS) < 5 * sqrt(IDS * 0.2 * 0.8));
    close_exposures(tenth, NULL);
    close_exposures(fifth, NULL);
    close_exposures(all, NULL);
    free(first);
    free(second);
    free(third);
}

typedef struct putter {
    pthread_t thread;
    ct_exposures *exposures;
    int number;
} putter;

static void *put_many(void *argument) {
    putter *p = argument;
    for (int i = 0; i < 500; i++) {
        char id[32];
        (void)snprintf(id, sizeof id, "%d-%d", p->number, i);
        put_small(p->exposures, id);
    }
    return NULL;
}

static void many_threads_lose_nothing(void **state) {
    ct_exposures *exposures = open_exposures(*state, 1, 8 << 20, 100000);
    putter putters[4];
    for (int t = 0; t < 4; t++) {
        putters[t] = (putter){.exposures = exposures, .number = t};
        assert_int_equal(pthread_create(&putters[t].thread, NULL, put_many, &putters[t]), 0);
    }
    for (int t = 0; t < 4; t++) (void)pthread_join(putters[t].thread, NULL);
    close_exposures(exposures, NULL);
    json_t *lines = lines_of(*state, NULL, NULL);
    int next[4] = {0};
    assert_int_equal(json_array_size(lines), 2000);
    for (size_t i = 0; i < 2000; i++) {
        int number = 0, n = 0;
        assert_int_equal(sscanf(text_of(json_array_get(lines, i), "request_id"), "%d-%d", &number, &n), 2);
        assert_int_equal(n, next[number]++); /* in each thread's order */
    }
    json_decref(lines);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_request_as_it_came, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(floats_round_trip, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(what_finds_no_room_is_counted, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_written_is_counted, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(lines_are_there_at_once_and_files_rotate, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(the_sample_is_the_hash_of_the_id, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(many_threads_lose_nothing, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
