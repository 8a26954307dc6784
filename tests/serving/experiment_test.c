/* An experiment in the server: which arm a request sees is what the library says, whatever becomes of models and files; what the answers,
 * the exposures and the figures say of it; and feedback over gRPC. */
#include "serving/admin_internal.h"
#include "tests/serving/lines.h"
#include "tests/serving/server_fixture.h"

#define FEEDBACK "/clicktower.v1.Scorer/Feedback"
#define MODELS   "/clicktower.v1.Scorer/Models"

enum { UNITS = 300 };

static const char EXPERIMENT[] =
    "name: ranker\n"
    "control: old\n"
    "holdout: 10\n"
    "ramp: %d\n"
    "arms: [{name: old, weight: 40, model: first}, {name: new, weight: 40, model: second}, {name: gone, weight: 20, model: third}]\n"
    "forced: [{unit: alice, arm: new}, {unit: gil, arm: gone}]\n";

static ct_experiment *experiment_of(const char *text) {
    ct_status status = CT_STATUS_INIT;
    ct_experiment *experiment = NULL;
    MUST(ct_experiment_parse(text, strlen(text), "experiment.yaml", &experiment, &status), status);
    return experiment;
}

static ct_experiment *experiment_at(int ramp) {
    char text[1000];
    (void)snprintf(text, sizeof text, EXPERIMENT, ramp);
    return experiment_of(text);
}

/* --- asking --- */

typedef struct client {
    ct_rpc_channel *channel;
    ct_arena arena;
} client;

static void client_init(client *c, const fixture *fx) {
    ct_status status = CT_STATUS_INIT;
    MUST(ct_rpc_channel_create(fx->target, NULL, &c->channel, &status), status);
    ct_arena_init(&c->arena, 0);
}

static void client_deinit(client *c) {
    ct_rpc_channel_destroy(c->channel);
    ct_arena_deinit(&c->arena);
}

static ct_code call(client *c, const char *path, const uint8_t *packed, size_t bytes, const ProtobufCMessageDescriptor *type, void *out,
                    ct_status *status) {
    const uint8_t *reply = NULL;
    size_t reply_bytes = 0;
    memcpy(ct_rpc_channel_reserve(c->channel, bytes), packed, bytes);
    CT_TRY(ct_rpc_channel_call(c->channel, path, TIMEOUT_MS, true, &reply, &reply_bytes, status));
    return ct_message_unpack(&c->arena, type, reply, reply_bytes, "answer", out, status);
}

typedef struct question {
    const char *unit, *arm, *model, *request_id;
    size_t rows;      /* 0 = 2 */
    const char *also; /* one more column; NULL = none */
    bool broken;      /* a column is missing */
} question;

/* malloc'd. The user is context. */
static uint8_t *pack_question(const question *q, size_t *out_bytes) {
    test_request r;
    test_request_init(&r);
    test_token(test_add(&r, true, "user"), "anna");
    test_length(test_add(&r, true, "likes"), 0);
    test_column *price = q->broken ? NULL : test_add(&r, false, "price"), *item = test_add(&r, false, "item");
    const size_t rows = q->rows ? q->rows : 2;
    for (size_t i = 0; i < rows; i++) {
        if (price) test_number(price, (float)i / 8);
        test_integer(item, (int64_t)i);
    }
    if (q->also) test_token(test_add(&r, true, q->also), "x");
    if (q->unit) r.message.unit = ct_text_data(q->unit);
    if (q->arm) r.message.arm = ct_text_data(q->arm);
    if (q->model) r.message.model = ct_text_data(q->model);
    if (q->request_id) r.message.request_id = ct_text_data(q->request_id);
    uint8_t *packed = test_pack(&r, out_bytes);
    test_request_deinit(&r);
    return packed;
}

static ct_code ask_for(client *c, const question *q, Clicktower__V1__ScoreResponse **out, ct_status *status) {
    size_t bytes = 0;
    uint8_t *packed = pack_question(q, &bytes);
    const ct_code code = call(c, SCORE, packed, bytes, &clicktower__v1__score_response__descriptor, out, status);
    free(packed);
    return code;
}

static Clicktower__V1__ScoreResponse *answer_to(client *c, const question *q) {
    ct_status status = CT_STATUS_INIT;
    Clicktower__V1__ScoreResponse *answer = NULL;
    MUST(ask_for(c, q, &answer, &status), status);
    return answer;
}

static bool is_text(ProtobufCBinaryData text, const char *wanted) {
    return text.len == strlen(wanted) && (text.len == 0 || memcmp(text.data, wanted, text.len) == 0);
}

#define assert_answer(answer, wanted_arm, wanted_assigned, wanted_model)                                                              \
    do {                                                                                                                              \
        const Clicktower__V1__ScoreResponse *a_ = (answer);                                                                           \
        if (!is_text(a_->arm, wanted_arm) || !is_text(a_->assigned, wanted_assigned) || !is_text(a_->model, wanted_model))            \
            fail_msg("arm %.*s, assigned %.*s, model %.*s; wanted %s, %s, %s", (int)a_->arm.len, a_->arm.data, (int)a_->assigned.len, \
                     a_->assigned.data, (int)a_->model.len, a_->model.data, wanted_arm, wanted_assigned, wanted_model);               \
        assert_true(is_text(a_->experiment, (wanted_arm)[0] ? "ranker" : ""));                                                        \
    } while (0)

static void assert_refused(client *c, const question *q, ct_code code, const char *word) {
    ct_status status = CT_STATUS_INIT;
    Clicktower__V1__ScoreResponse *answer = NULL;
    assert_int_equal(ask_for(c, q, &answer, &status), code);
    if (!strstr(status.message, word)) fail_msg("no \"%s\" in: %s", word, status.message);
}

static void unit_name(size_t unit, char out[32]) { (void)snprintf(out, 32, "user-%zu", unit); }

static void replace(fixture *fx, const ct_experiment *experiment, bool with_third) {
    ct_status status = CT_STATUS_INIT;
    const ct_server_model models[] = {{"first", fx->model}, {"second", fx->other}, {"third", fx->other}};
    MUST(ct_server_replace(fx->server, models, with_third ? 3 : 2, experiment, NULL, &status), status);
}

/* --- tests --- */

/* Over the wire as in the library, also from ramp to ramp. The arm "gone" has no model. */
static void every_unit_sees_the_arm_of_the_library(void **state) {
    fixture *fx = *state;
    ct_experiment *small = experiment_at(30), *large = experiment_at(80);
    fx->experiment = small;
    fake_model_set_version(fx->other, 3);
    start(fx, 2);
    client c;
    client_init(&c, fx);
    static ct_assignment before[UNITS];
    size_t seen[CT_ASSIGN_HOWS] = {0};
    for (int round = 0; round < 2; round++) {
        const ct_experiment *now = round ? large : small;
        if (round) replace(fx, large, false);
        for (size_t u = 0; u < UNITS; u++) {
            char unit[32];
            unit_name(u, unit);
            const ct_assignment wanted = ct_assign(now, unit, strlen(unit));
            const bool fallback = wanted.arm == 2;
            const Clicktower__V1__ScoreResponse *answer = answer_to(&c, &(question){.unit = unit});
            assert_answer(answer, fallback ? "old" : ct_experiment_arm_name(now, wanted.arm),
                          fallback ? "fallback" : ct_assign_how_name(wanted.how), wanted.arm == 1 ? "second" : "first");
            assert_int_equal(answer->model_version.data[31], wanted.arm == 1 ? '3' : 'f');
            assert_int_equal(answer->n_outputs, wanted.arm == 1 ? 2 : 1); /* the scores are that model's, too */
            if (round && before[u].how == CT_ASSIGN_DRAWN) assert_true(wanted.how == CT_ASSIGN_DRAWN && wanted.arm == before[u].arm);
            before[u] = wanted;
            seen[fallback ? CT_ASSIGN_FALLBACK : wanted.how]++;
        }
    }
    for (int how = 0; how < CT_ASSIGN_FORCED; how++) assert_true(seen[how] > 10);
    assert_true(seen[CT_ASSIGN_FALLBACK] > 10);
    client_deinit(&c);
    stop(fx);
    ct_experiment_destroy(small);
    ct_experiment_destroy(large);
}

static void forced_outside_and_without_a_unit(void **state) {
    fixture *fx = *state;
    ct_experiment *experiment = experiment_at(0); /* nobody else takes part */
    fx->experiment = experiment;
    start(fx, 2);
    client c;
    client_init(&c, fx);
    assert_answer(answer_to(&c, &(question){.unit = "alice"}), "new", "forced", "second");
    assert_answer(answer_to(&c, &(question){.unit = "gil"}), "old", "fallback", "first");
    assert_answer(answer_to(&c, &(question){.unit = "bob", .arm = "new"}), "new", "outside", "second");
    assert_answer(answer_to(&c, &(question){.unit = "alice", .arm = "old"}), "old", "outside", "first");
    assert_answer(answer_to(&c, &(question){.arm = "new"}), "new", "outside", "second");
    assert_answer(answer_to(&c, &(question){.unit = "bob", .arm = "gone"}), "old", "fallback", "first");
    assert_answer(answer_to(&c, &(question){.unit = NULL}), "old", "none", "first");
    assert_answer(answer_to(&c, &(question){.unit = "alice", .model = "first"}), "", "", "first");
    assert_refused(&c, &(question){.unit = "bob", .arm = "newer"}, CT_INVALID, "\"newer\"");
    assert_refused(&c, &(question){.unit = "bob", .arm = "new", .model = "second"}, CT_INVALID, "beside a model");
    assert_refused(&c, &(question){.unit = "bob", .arm = "\xc3("}, CT_INVALID, "arm");
    assert_refused(&c, &(question){.unit = "bob", .model = "third"}, CT_NOT_FOUND, "third");

    /* The model comes, then the experiment goes. */
    replace(fx, experiment, true);
    assert_answer(answer_to(&c, &(question){.unit = "gil"}), "gone", "forced", "third");
    replace(fx, NULL, true);
    assert_answer(answer_to(&c, &(question){.unit = "gil"}), "", "", "first");
    assert_refused(&c, &(question){.unit = "gil", .arm = "new"}, CT_INVALID, "no experiment");

    /* Without the control's model nothing changes. */
    ct_status status = CT_STATUS_INIT;
    const ct_server_model second = {"second", fx->other};
    assert_int_equal(ct_server_replace(fx->server, &second, 1, experiment, NULL, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "'first'"));
    assert_answer(answer_to(&c, &(question){.unit = "gil"}), "", "", "first");
    client_deinit(&c);
    stop(fx);
    ct_server *none = NULL;
    const ct_server_options options = {.listen = "127.0.0.1:0", .models = &second, .model_count = 1, .experiment = experiment};
    assert_int_equal(ct_server_start(&options, &none, &status), CT_INVALID);
    ct_experiment_destroy(experiment);
}

static void models_says_what_runs(void **state) {
    fixture *fx = *state;
    ct_experiment *experiment = experiment_at(50);
    fx->experiment = experiment;
    start(fx, 1);
    client c;
    client_init(&c, fx);
    ct_status status = CT_STATUS_INIT;
    Clicktower__V1__ModelsResponse *answer = NULL;
    MUST(call(&c, MODELS, (const uint8_t *)"", 0, &clicktower__v1__models_response__descriptor, &answer, &status), status);
    assert_non_null(answer->experiment);
    assert_true(is_text(answer->experiment->name, "ranker"));
    assert_int_equal(answer->experiment->n_arms, 3);
    const Clicktower__V1__Arm *gone = answer->experiment->arms[2], *old = answer->experiment->arms[0];
    assert_true(is_text(gone->name, "gone") && is_text(gone->model, "third") && gone->weight == 20 && !gone->control && !gone->served);
    assert_true(is_text(old->name, "old") && is_text(old->model, "first") && old->weight == 40 && old->control && old->served);
    replace(fx, NULL, false);
    MUST(call(&c, MODELS, (const uint8_t *)"", 0, &clicktower__v1__models_response__descriptor, &answer, &status), status);
    assert_null(answer->experiment);
    client_deinit(&c);
    stop(fx);
    ct_experiment_destroy(experiment);
}

/* Arms over schemas that differ: a request brings what any of them needs. */
static void columns_of_another_arm_are_no_mistake(void **state) {
    fixture *fx = *state;
    ct_status status = CT_STATUS_INIT;
    static const char MORE[] =
        "name: more\nformat: {columns: 5}\nfields:\n"
        "  - {name: price, kind: number, column: 1}\n"
        "  - {name: user, kind: id, column: 2, type: text}\n"
        "  - {name: mood, kind: id, column: 3, type: text}\n"
        "  - {name: item, kind: id, column: 4, type: integer}\n";
    ct_schema *more = NULL;
    MUST(ct_schema_parse(MORE, strlen(MORE), "more.yaml", &more, &status), status);
    const bool used[] = {true, true, true, true};
    ct_model *moody = fake_model_create(more, used, 1);
    ct_experiment *experiment = experiment_of(
        "name: ranker\narms: [{name: old, model: first}, {name: new, model: moody}]\nforced: [{unit: n, arm: new}, {unit: o, arm: old}]\n");
    start(fx, 2);
    client c;
    client_init(&c, fx);
    const ct_server_model models[] = {{"first", fx->model}, {"moody", moody}};
    MUST(ct_server_replace(fx->server, models, 2, NULL, NULL, &status), status);
    assert_refused(&c, &(question){.also = "mood"}, CT_INVALID, "'mood'");
    MUST(ct_server_replace(fx->server, models, 2, experiment, NULL, &status), status);
    assert_answer(answer_to(&c, &(question){.unit = "o", .also = "mood"}), "old", "forced", "first");
    assert_answer(answer_to(&c, &(question){.unit = "n", .also = "mood"}), "new", "forced", "moody");
    assert_answer(answer_to(&c, &(question){.unit = "o"}), "old", "forced", "first");
    assert_refused(&c, &(question){.unit = "n"}, CT_INVALID, "'mood' is missing");
    assert_refused(&c, &(question){.unit = "o", .also = "moo"}, CT_INVALID, "'moo'");
    client_deinit(&c);
    stop(fx);
    ct_experiment_destroy(experiment);
    ct_model_destroy(moody);
    ct_schema_destroy(more);
}

/* The value of a series in /metrics. */
static double metric(fixture *fx, const char *series) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    ct_metrics_write(out, fx->server, "1", NULL, 0);
    assert_int_equal(fclose(out), 0);
    char line[300];
    (void)snprintf(line, sizeof line, "\n%s ", series);
    const char *found = strstr(text, line);
    if (!found) fail_msg("no %s", series);
    const double value = strtod(found + strlen(line), NULL);
    free(text);
    return value;
}

static double requests_of(fixture *fx, const char *arm, const char *assigned) {
    char series[200];
    (void)snprintf(series, sizeof series, "clicktower_experiment_requests_total{experiment=\"ranker\",arm=\"%s\",assigned=\"%s\"}", arm,
                   assigned);
    return metric(fx, series);
}

static void counts_go_on_through_a_swap(void **state) {
    fixture *fx = *state;
    ct_experiment *experiment = experiment_at(0), *renamed = NULL;
    char text[1000];
    (void)snprintf(text, sizeof text, EXPERIMENT, 0);
    memcpy(strstr(text, "ranker"), "rankes", 6);
    renamed = experiment_of(text);
    fx->experiment = experiment;
    start(fx, 2);
    client c;
    client_init(&c, fx);
    static const double wanted[] = {3, 6};
    for (size_t round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) (void)answer_to(&c, &(question){.unit = "alice"});
        (void)answer_to(&c, &(question){.unit = "gil"});
        (void)answer_to(&c, &(question){.unit = NULL});
        (void)answer_to(&c, &(question){.unit = "x", .arm = "new"});
        (void)answer_to(&c, &(question){.unit = "x", .model = "first"});
        assert_refused(&c, &(question){.unit = "alice", .broken = true}, CT_INVALID, "'price'");
        assert_refused(&c, &(question){.unit = "alice", .arm = "nobody"}, CT_INVALID, "nobody");
        wait_until_counted(fx);
        const double times = (double)round + 1;
        assert_true(requests_of(fx, "new", "forced") == wanted[round] + times); /* the failed one, too */
        assert_true(requests_of(fx, "old", "fallback") == times);
        assert_true(requests_of(fx, "old", "none") == times);
        assert_true(requests_of(fx, "new", "outside") == times);
        assert_true(requests_of(fx, "old", "bucket") == 0);
        assert_true(metric(fx, "clicktower_experiment_failures_total{experiment=\"ranker\",arm=\"new\"}") == times);
        assert_true(metric(fx, "clicktower_experiment_failures_total{experiment=\"ranker\",arm=\"old\"}") == 0);
        if (round == 0) replace(fx, experiment, false);
    }
    assert_true(
        metric(fx,
               "clicktower_experiment_arm_info{experiment=\"ranker\",arm=\"gone\",model=\"third\",control=\"false\",served=\"false\"}") ==
        1);
    assert_true(metric(fx, "clicktower_experiment_arm_weight{experiment=\"ranker\",arm=\"gone\"}") == 20);
    assert_true(metric(fx, "clicktower_experiment_holdout_percent") == 10);
    replace(fx, renamed, false); /* another experiment begins at 0 */
    assert_true(metric(fx, "clicktower_experiment_requests_total{experiment=\"rankes\",arm=\"new\",assigned=\"forced\"}") == 0);
    client_deinit(&c);
    stop(fx);
    ct_experiment_destroy(experiment);
    ct_experiment_destroy(renamed);
}

/* --- exposures --- */

static void open_exposures(fixture *fx, const char *folder) {
    ct_status status = CT_STATUS_INIT;
    MUST(ct_exposures_open(&(ct_exposures_options){folder, 1, 16 << 20, 1 << 20, 1000000000, NULL}, &fx->exposures, &status), status);
}

static json_t *close_exposures(fixture *fx, const char *folder) {
    ct_status status = CT_STATUS_INIT;
    ct_exposures_stats stats;
    MUST(ct_exposures_close(fx->exposures, &stats, &status), status);
    assert_int_equal(stats.dropped_full + stats.dropped_unwritable, 0);
    fx->exposures = NULL;
    return lines_of(folder, NULL, NULL);
}

/* The line of that request; there is exactly one. */
static const json_t *line_of(const json_t *lines, const char *request_id) {
    const json_t *found = NULL;
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        if (strcmp(text_of(line, "request_id"), request_id) != 0) continue;
        assert_null(found);
        found = line;
    }
    if (!found) fail_msg("no line of %s", request_id);
    return found;
}

/* Its scores are those of rows 0 .. of the fake model, and its derived column what the fake model makes of them. */
static void assert_scores(const fixture *fx, const json_t *line, const ct_model *model, size_t rows) {
    question q = {.rows = rows};
    size_t bytes = 0;
    uint8_t *packed = pack_question(&q, &bytes);
    ct_status status = CT_STATUS_INIT;
    ct_arena arena;
    ct_arena_init(&arena, 0);
    bool used[16] = {false};
    for (size_t f = 0; f < fx->schema->field_count; f++) used[f] = ct_model_uses_field(model, f);
    ct_decoder *decoder = NULL;
    Clicktower__V1__ScoreRequest *request = NULL;
    ct_batch batch;
    MUST(ct_decoder_create(fx->schema, used, 5000, &decoder, &status), status);
    MUST(ct_request_unpack(&arena, packed, bytes, &request, &status), status);
    MUST(ct_request_batch(decoder, &arena, request, &batch, &status), status);
    assert_int_equal(integer_of(line, "candidates"), rows);
    const json_t *click = json_object_get(json_object_get(line, "scores"), "click");
    const json_t *derived = json_array_get(json_object_get(line, "derived"), 0);
    assert_int_equal(json_array_size(click), rows);
    assert_string_equal(text_of(derived, "name"), "item#odds");
    const json_t *numbers = json_object_get(derived, "numbers");
    assert_int_equal(json_array_size(numbers), rows);
    for (size_t r = 0; r < rows; r++) {
        float logits[2], probability;
        fake_model_logits(model, &batch, r, logits);
        ct_probabilities(logits, &probability, 1);
        assert_true((float)json_number_value(json_array_get(click, r)) == probability);
        assert_true((float)json_number_value(json_array_get(numbers, r)) == logits[0] + 1.0f);
    }
    ct_decoder_destroy(decoder);
    ct_arena_deinit(&arena);
    free(packed);
}

typedef struct caller {
    pthread_t thread;
    const fixture *fx;
    char request_id[32];
    size_t rows;
    const char *unit;
} caller;

static void *call_main(void *argument) {
    caller *one = argument;
    client c;
    client_init(&c, one->fx);
    (void)answer_to(&c, &(question){.unit = one->unit, .request_id = one->request_id, .rows = one->rows});
    client_deinit(&c);
    return NULL;
}

static void start_call(caller *one, const fixture *fx, size_t number, size_t rows, const char *unit) {
    *one = (caller){.fx = fx, .rows = rows, .unit = unit};
    (void)snprintf(one->request_id, sizeof one->request_id, "call-%zu", number);
    assert_int_equal(pthread_create(&one->thread, NULL, call_main, one), 0);
}

/* Requests that are computed alone, together with others, and by several threads: each line holds its own scores and derived columns. */
static void every_way_of_computing_is_logged(void **state) {
    fixture *fx = *state;
    enum { SMALL = 12, LARGE = 3 };
    char *folder = temp_path(fx->folder, "ways");
    open_exposures(fx, folder);
    const size_t item = (size_t)ct_schema_find(fx->schema, "item");
    fake_model_set_version(fx->other, 2);
    fake_model_derive(fx->model, item);
    fake_model_derive(fx->other, item);
    ct_experiment *experiment = experiment_of(
        "name: ranker\narms: [{name: old, model: first}, {name: new, model: second}]\nforced: [{unit: n, arm: new}, {unit: o, arm: "
        "old}]\n");
    fx->experiment = experiment;
    caller small[SMALL], large[LARGE], blocker;
    start(fx, 1); /* one thread computes: while it is held, the others wait and are then computed together */
    fake_model_hold(fx->model, true);
    start_call(&blocker, fx, 1000, 1, "o");
    fake_model_wait_runs(fx->model, 1);
    for (size_t i = 0; i < SMALL; i++) start_call(&small[i], fx, i, 1 + i % 5, i % 3 ? "o" : "n");
    while (look(fx).queued != SMALL) continue;
    fake_model_hold(fx->model, false);
    for (size_t i = 0; i < SMALL; i++) (void)pthread_join(small[i].thread, NULL);
    (void)pthread_join(blocker.thread, NULL);
    wait_until_counted(fx);
    assert_true(look(fx).merged_requests >= SMALL - 1);
    stop(fx);
    start(fx, 4);
    for (size_t i = 0; i < LARGE; i++) start_call(&large[i], fx, 100 + i, 1500 + i, i == 1 ? "n" : "o");
    for (size_t i = 0; i < LARGE; i++) (void)pthread_join(large[i].thread, NULL);
    stop(fx);
    json_t *lines = close_exposures(fx, folder);
    assert_int_equal(json_array_size(lines), SMALL + LARGE + 1);
    for (size_t i = 0; i < SMALL; i++) assert_scores(fx, line_of(lines, small[i].request_id), i % 3 ? fx->model : fx->other, small[i].rows);
    for (size_t i = 0; i < LARGE; i++) {
        const json_t *line = line_of(lines, large[i].request_id);
        assert_scores(fx, line, i == 1 ? fx->other : fx->model, large[i].rows);
        assert_string_equal(text_of(line, "arm"), i == 1 ? "new" : "old");
        assert_string_equal(text_of(line, "model"), i == 1 ? "second" : "first");
        assert_string_equal(text_of(line, "assigned"), "forced");
    }
    json_decref(lines);
    free(folder);
    ct_experiment_destroy(experiment);
}

static void ids_failures_and_what_is_not_logged(void **state) {
    fixture *fx = *state;
    char *folder = temp_path(fx->folder, "ids");
    open_exposures(fx, folder);
    ct_experiment *experiment = experiment_at(0);
    fx->experiment = experiment;
    fake_model_derive(fx->model, (size_t)ct_schema_find(fx->schema, "user")); /* comes as context: one value */
    start(fx, 2);
    client c;
    client_init(&c, fx);
    const Clicktower__V1__ScoreResponse *mine = answer_to(&c, &(question){.unit = "gil", .request_id = "mine"});
    assert_true(is_text(mine->request_id, "mine"));
    char made[2][40] = {""};
    for (int i = 0; i < 2; i++) {
        const Clicktower__V1__ScoreResponse *answer = answer_to(&c, &(question){.unit = NULL});
        assert_in_range(answer->request_id.len, 16, 39);
        memcpy(made[i], answer->request_id.data, answer->request_id.len);
    }
    assert_string_not_equal(made[0], made[1]);
    (void)answer_to(&c, &(question){.model = "second", .request_id = "by model"});
    assert_refused(&c, &(question){.unit = "alice", .request_id = "broken", .broken = true}, CT_INVALID, "price");
    /* No arm is known: in no file. */
    assert_refused(&c, &(question){.unit = "alice", .request_id = "no arm", .arm = "nobody"}, CT_INVALID, "nobody");
    assert_refused(&c, &(question){.request_id = "by model, broken", .model = "first", .broken = true}, CT_INVALID, "price");
    client_deinit(&c);
    stop(fx);
    json_t *lines = close_exposures(fx, folder);
    assert_int_equal(json_array_size(lines), 5);
    const json_t *line = line_of(lines, "mine");
    assert_string_equal(text_of(line, "unit"), "gil");
    assert_string_equal(text_of(line, "experiment"), "ranker");
    assert_string_equal(text_of(line, "arm"), "old");
    assert_string_equal(text_of(line, "assigned"), "fallback");
    assert_string_equal(text_of(line, "fallback_arm"), "gone");
    assert_string_equal(text_of(line, "model_version"), "ffffffffffffffffffffffffffffffff");
    assert_true(integer_of(line, "latency_us") > 0);
    const json_t *derived = json_array_get(json_object_get(line, "derived"), 0);
    assert_string_equal(text_of(derived, "name"), "user#odds");
    assert_int_equal(json_array_size(json_object_get(derived, "numbers")), 1);
    assert_string_equal(text_of(line_of(lines, made[0]), "assigned"), "none");
    assert_string_equal(text_of(line_of(lines, made[1]), "arm"), "old");
    line = line_of(lines, "by model");
    assert_string_equal(text_of(line, "experiment"), "");
    assert_string_equal(text_of(line, "arm"), "");
    assert_string_equal(text_of(line, "assigned"), "none");
    assert_string_equal(text_of(line, "model"), "second");
    line = line_of(lines, "broken");
    assert_string_equal(text_of(line, "error"), "INVALID_ARGUMENT");
    assert_string_equal(text_of(line, "arm"), "new");
    assert_null(json_object_get(line, "columns"));
    json_decref(lines);
    free(folder);
    ct_experiment_destroy(experiment);
}

/* --- feedback --- */

static void feedback_over_grpc(void **state) {
    fixture *fx = *state;
    ct_status status = CT_STATUS_INIT;
    char *folder = temp_path(fx->folder, "feedback");
    MUST(ct_feedback_open(&(ct_feedback_options){.folder = folder, .rotate_bytes = 1 << 20, .rotate_ms = 1000000000}, &fx->feedback,
                          &status),
         status);
    start(fx, 1);
    client c;
    client_init(&c, fx);
    Clicktower__V1__FeedbackRequest request = CLICKTOWER__V1__FEEDBACK_REQUEST__INIT;
    Clicktower__V1__FeedbackEvent event = CLICKTOWER__V1__FEEDBACK_EVENT__INIT, *events[] = {&event, &event};
    event.request_id = ct_text_data("r");
    event.event = ct_text_data("click");
    request.events = events;
    request.n_events = 2;
    uint8_t packed[200];
    size_t bytes = clicktower__v1__feedback_request__pack(&request, packed);
    Clicktower__V1__FeedbackResponse *answer = NULL;
    MUST(call(&c, FEEDBACK, packed, bytes, &clicktower__v1__feedback_response__descriptor, &answer, &status), status);
    assert_int_equal(answer->accepted, 2);
    json_t *lines = lines_of(folder, NULL, NULL);
    assert_int_equal(json_array_size(lines), 2);
    json_decref(lines);
    event.event.len = 0;
    bytes = clicktower__v1__feedback_request__pack(&request, packed);
    assert_int_equal(call(&c, FEEDBACK, packed, bytes, &clicktower__v1__feedback_response__descriptor, &answer, &status), CT_INVALID);
    assert_non_null(strstr(status.message, "events[0].event"));
    assert_true(metric(fx, "clicktower_feedback_events_total{event=\"click\"}") == 2);
    assert_true(metric(fx, "clicktower_feedback_refused_total{reason=\"invalid\"}") == 1);
    client_deinit(&c);
    stop(fx);
    MUST(ct_feedback_close(fx->feedback, &status), status);
    fx->feedback = NULL;
    start(fx, 1);
    client_init(&c, fx);
    assert_int_equal(call(&c, FEEDBACK, packed, bytes, &clicktower__v1__feedback_response__descriptor, &answer, &status), CT_UNSUPPORTED);
    assert_non_null(strstr(status.message, "--feedback"));
    client_deinit(&c);
    stop(fx);
    free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        EACH(every_unit_sees_the_arm_of_the_library),
        EACH(forced_outside_and_without_a_unit),
        EACH(models_says_what_runs),
        EACH(columns_of_another_arm_are_no_mistake),
        EACH(counts_go_on_through_a_swap),
        EACH(every_way_of_computing_is_logged),
        EACH(ids_failures_and_what_is_not_logged),
        EACH(feedback_over_grpc),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
