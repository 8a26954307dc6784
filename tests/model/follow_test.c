/* Deltas: a base and its deltas are, digest for digest, the models that were saved at those moments; and a model that is read while it
 * follows gives each reader, to the bit, one of them, whole. */
#include <pthread.h>
#include <unistd.h>

#include "base/file.h"
#include "embedding_store/delta.h"
#include "model/publication.h"
#include "tests/model/fixture.h"

enum { ROWS = 2400, BATCH = 60, DELTAS = 6, EACH = 6 /* batches */, ASKED = 200 /* rows of a reader's batch */ };

static const char *const plain[] = {"embedding.min_count=2", "embedding.id_drop=0.1", "embedding.precision=fp16", "deep=[16]"};
static const char *const counted[] = {"embedding.target_stats=true", "embedding.optimizer=adam", "numbers.buckets=false", "deep=[16]"};

typedef struct world {
    char *folder, *log;
    ct_schema *schema;
    ct_batch *asked;
    char digests[DELTAS + 1][CT_DIGEST_HEX_BYTES]; /* by number */
    float *logits[DELTAS + 1];                     /* of `asked` */
} world;

static char *path_of(const world *world, const char *name) {
    char *path = ct_path_join(world->folder, name);
    assert_non_null(path);
    return path;
}

static char *delta_of(const world *world, int64_t sequence) {
    char *path = ct_publication_delta(world->folder, sequence);
    assert_non_null(path);
    return path;
}

static ct_delta *open_delta(const world *world, int64_t sequence) {
    char *path = delta_of(world, sequence);
    ct_delta *delta = NULL;
    assert_ok(ct_delta_open(path, &delta, &status));
    free(path);
    return delta;
}

/* Trains, and publishes a base and DELTAS deltas; saves the model at each of these moments, and scores with what was saved. */
static void world_init(world *world, const char *const *sets, size_t threads, uint64_t memory_bytes) {
    *world = (struct world){.folder = temp_folder()};
    world->schema = shop_schema(world->folder);
    world->log = shop_log(world->folder, "log.tsv", 0, ROWS, -1);
    world->asked = read_all(world->schema, world->log, ROWS);
    ct_pool *pool = make_pool(threads);
    ct_model_spec *spec = make_spec("dcn-v2", sets, 4);
    char *live = path_of(world, "live"), *base = ct_publication_base(world->folder, 0);
    const ct_model_options options = {.seed = 5, .batch_rows = BATCH, .pool = pool, .memory_bytes = memory_bytes, .live_folder = live};
    ct_model *model = NULL;
    json_t *metrics = json_object();
    assert_ok(ct_model_create(world->schema, spec, &options, &model, &status));
    ct_model_expect_deltas(model);
    assert_ok(ct_model_track_changes(model, &status));
    for (int64_t number = 0; number <= DELTAS; number++) {
        train_on(model, world->log, 0, (size_t)number * EACH, (size_t)(number + 1) * EACH);
        if (number == 0) {
            assert_ok(ct_model_publish_base(model, base, 0, metrics, &status));
            assert_int_equal(ct_model_changes(model), 0);
        } else {
            ct_delta_facts facts = {.sequence = number, .base_sequence = 0, .oldest_row_ms = 1, .newest_row_ms = 2};
            memcpy(facts.base, world->digests[0], sizeof facts.base);
            memcpy(facts.from, world->digests[number - 1], sizeof facts.from);
            assert_true(ct_model_changes(model) > 0);
            char *path = delta_of(world, number);
            assert_ok(ct_model_publish_delta(model, path, &facts, &status));
            free(path);
            assert_int_equal(ct_model_changes(model), 0);
            memcpy(world->digests[number], facts.to, sizeof facts.to);
        }
        char name[32], *saved;
        (void)snprintf(name, sizeof name, "saved-%lld", (long long)number);
        saved = path_of(world, name);
        save_model(model, saved);
        ct_model *read = open_model(saved, CT_MODEL_READ, pool);
        char digest[CT_DIGEST_HEX_BYTES];
        digest_of(read, digest); /* as its manifest says: computed over all rows */
        if (number == 0) memcpy(world->digests[0], digest, sizeof digest);
        assert_string_equal(world->digests[number], digest);
        world->logits[number] = score_all(read, world->asked);
        ct_model_destroy(read);
        free(saved);
    }
    ct_model_destroy(model);
    json_decref(metrics);
    ct_model_spec_destroy(spec);
    ct_pool_destroy(pool);
    free(live);
    free(base);
}

static void world_deinit(world *world) {
    for (size_t i = 0; i <= DELTAS; i++) free(world->logits[i]);
    ct_batch_destroy(world->asked);
    ct_schema_destroy(world->schema);
    free(world->log);
    temp_remove(world->folder);
}

/* --- a base and its deltas are the model --- */

static void check_equal(const char *const *sets, size_t threads, uint64_t memory_bytes) {
    world world;
    world_init(&world, sets, threads, memory_bytes);
    ct_pool *pool = make_pool(2);
    char *base = ct_publication_base(world.folder, 0), digest[CT_DIGEST_HEX_BYTES];
    ct_model *model = open_model(base, CT_MODEL_TRAIN, pool);
    for (int64_t number = 1; number <= DELTAS; number++) {
        ct_delta *delta = open_delta(&world, number);
        assert_ok(ct_delta_check(delta, &status));
        assert_ok(ct_model_apply_delta(model, delta, &status));
        digest_of(model, digest);
        assert_string_equal(digest, world.digests[number]);
        ct_delta_close(delta);
    }
    ct_model_destroy(model);
    ct_pool_destroy(pool);
    free(base);
    world_deinit(&world);
}

static void test_equal(void **state) {
    (void)state;
    check_equal(plain, 1, 0);
    check_equal(counted, 2, 0);
    check_equal(plain, 2, (uint64_t)36 << 20);
    check_equal(counted, 1, (uint64_t)36 << 20);
}

/* --- reading while it follows --- */

/* What is served: as the server's set, replaced as a whole, and waited for. */
typedef struct served {
    pthread_mutex_t lock;
    pthread_cond_t ended; /* a round */
    ct_model *model;
    size_t number, users[DELTAS + 1];
    size_t rounds, wrong;
    bool stop;
    const world *world;
} served;

static void *reader_main(void *argument) {
    served *served = argument;
    const world *world = served->world;
    (void)pthread_mutex_lock(&served->lock);
    for (size_t round = 0; !served->stop; round++) {
        ct_model *model = served->model;
        const size_t number = served->number;
        served->users[number]++;
        (void)pthread_mutex_unlock(&served->lock);
        ct_status status = CT_STATUS_INIT;
        ct_scorer *scorer = NULL;
        float logits[ASKED];
        const size_t first = round * 37 % (ROWS - ASKED);
        ct_code code = ct_scorer_create(model, &scorer, &status);
        for (size_t done = 0; code == CT_OK && done < ASKED; done += 50) /* in pieces, as a request is shared */
            code = ct_scorer_run(scorer, world->asked, first + done, 50, logits + done, &status);
        ct_scorer_destroy(scorer);
        (void)pthread_mutex_lock(&served->lock);
        served->wrong += code != CT_OK || memcmp(logits, world->logits[number] + first, sizeof logits) != 0;
        served->users[number]--;
        served->rounds++;
        (void)pthread_cond_broadcast(&served->ended);
    }
    (void)pthread_mutex_unlock(&served->lock);
    return NULL;
}

/* Until the readers have come so many rounds further. */
static void let_read(served *served, size_t rounds) {
    (void)pthread_mutex_lock(&served->lock);
    const size_t until = served->rounds + rounds;
    while (served->rounds < until) (void)pthread_cond_wait(&served->ended, &served->lock);
    (void)pthread_mutex_unlock(&served->lock);
}

static void follow_while_read(const char *const *sets, uint64_t memory_bytes, const char *scratch_name) {
    enum { READERS = 2 };
    world world;
    world_init(&world, sets, 2, 0);
    ct_pool *pool = make_pool(1);
    char *base = ct_publication_base(world.folder, 0), *scratch = scratch_name ? path_of(&world, scratch_name) : NULL;
    ct_follower *follower = NULL;
    assert_ok(ct_follower_open(base, memory_bytes, scratch, pool, &follower, &status));
    assert_int_equal(ct_follower_sequence(follower), 0);
    served served = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER, .model = ct_follower_model(follower), .world = &world};
    pthread_t threads[READERS];
    for (size_t i = 0; i < READERS; i++) assert_int_equal(pthread_create(&threads[i], NULL, reader_main, &served), 0);
    for (int64_t number = 1; number <= DELTAS; number++) {
        ct_delta *delta = open_delta(&world, number), *again = open_delta(&world, number == 1 ? 3 : number - 1);
        ct_model *model = NULL;
        assert_refused(CT_INVALID, "must follow", ct_follower_stage(follower, again, &model, &status));
        assert_ok(ct_follower_stage(follower, delta, &model, &status));
        if (number % 2) { /* thought better of */
            ct_follower_drop(follower);
            let_read(&served, READERS);
            assert_ok(ct_follower_stage(follower, delta, &model, &status));
        }
        (void)pthread_mutex_lock(&served.lock);
        served.model = model;
        served.number = (size_t)number;
        while (served.users[number - 1]) (void)pthread_cond_wait(&served.ended, &served.lock);
        (void)pthread_mutex_unlock(&served.lock);
        if (number % 3 == 0) let_read(&served, READERS); /* of the overlay */
        assert_ok(ct_follower_settle(follower, &status));
        assert_ptr_equal(ct_follower_model(follower), model);
        char digest[CT_DIGEST_HEX_BYTES];
        digest_of(model, digest);
        assert_string_equal(digest, world.digests[number]);
        let_read(&served, READERS);
        ct_delta_close(delta);
        ct_delta_close(again);
    }
    (void)pthread_mutex_lock(&served.lock);
    served.stop = true;
    (void)pthread_mutex_unlock(&served.lock);
    for (size_t i = 0; i < READERS; i++) (void)pthread_join(threads[i], NULL);
    assert_int_equal(served.wrong, 0);
    /* the sizes that it tells are those of the training */
    ct_model *last = open_model(base, CT_MODEL_TRAIN, pool);
    for (int64_t number = 1; number <= DELTAS; number++) {
        ct_delta *delta = open_delta(&world, number);
        assert_ok(ct_model_apply_delta(last, delta, &status));
        ct_delta_close(delta);
    }
    ct_model_table wanted, found;
    ct_model_table_get(last, 0, &wanted);
    ct_model_table_get(ct_follower_model(follower), 0, &found);
    assert_int_equal(found.rows, wanted.rows);
    ct_model_destroy(last);
    if (scratch) assert_true(ct_path_is_folder(scratch)); /* not all of it found room */
    ct_follower_close(follower);
    if (scratch) assert_false(ct_path_exists(scratch));
    ct_pool_destroy(pool);
    free(scratch);
    free(base);
    world_deinit(&world);
}

static void test_follow(void **state) {
    (void)state;
    follow_while_read(plain, 0, NULL);
    follow_while_read(counted, 0, NULL);
    follow_while_read(counted, 9 << 20, NULL);
    /* no room in memory, and not enough */
    follow_while_read(plain, 1 << 10, "scratch");
    follow_while_read(counted, 24 << 10, "scratch");
}

/* --- what is not right is refused --- */

static void write_bytes(const char *path, const char *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static ct_code read_whole(const char *path, ct_status *status) {
    ct_delta *delta = NULL;
    CT_TRY(ct_delta_open(path, &delta, status));
    const ct_code code = ct_delta_check(delta, status);
    ct_delta_close(delta);
    return code;
}

static void test_refused(void **state) {
    (void)state;
    world world, other;
    world_init(&world, plain, 1, 0);
    world_init(&other, counted, 1, 0);
    char *path = delta_of(&world, 1), *copy = path_of(&world, "copy.ctd"), *bytes = NULL;
    size_t count = 0;
    assert_ok(ct_file_read(path, SIZE_MAX / 2, &bytes, &count, &status));
    /* every byte that is flipped, and every length, is found */
    for (size_t at = 0; at < count; at += at < 200 ? 1 : 499) {
        bytes[at] ^= 0x10;
        write_bytes(copy, bytes, count);
        bytes[at] ^= 0x10;
        ct_status status = CT_STATUS_INIT;
        const ct_code code = read_whole(copy, &status);
        if (code != CT_CORRUPT || strstr(status.message, "copy.ctd") == NULL)
            fail_msg("byte %zu of %zu: %s: %s", at, count, ct_code_name(code), status.message);
    }
    for (size_t bytes_there = 0; bytes_there < count; bytes_there += bytes_there < 50 ? 1 : 4999) {
        write_bytes(copy, bytes, bytes_there);
        assert_refused(CT_UNAVAILABLE, "copy.ctd", read_whole(copy, &status));
    }
    bytes = realloc(bytes, count + 1);
    bytes[count] = 0;
    write_bytes(copy, bytes, count + 1);
    assert_refused(CT_CORRUPT, "copy.ctd", read_whole(copy, &status));

    ct_pool *pool = make_pool(1);
    ct_follower *follower = NULL;
    char *base = ct_publication_base(world.folder, 0);
    assert_ok(ct_follower_open(base, 0, NULL, pool, &follower, &status));
    ct_delta *third = open_delta(&world, 3), *strange = open_delta(&other, 1), *first = open_delta(&world, 1);
    ct_model *model = NULL;
    assert_refused(CT_INVALID, "it is number 3, and the model is at number 0, which number 1 must follow",
                   ct_follower_stage(follower, third, &model, &status));
    assert_refused(CT_INVALID, "is of another training", ct_follower_stage(follower, strange, &model, &status));
    assert_refused(CT_INVALID, other.digests[0], ct_follower_stage(follower, strange, &model, &status));
    assert_ok(ct_follower_stage(follower, first, &model, &status));
    assert_ok(ct_follower_settle(follower, &status));
    ct_delta_close(first);
    ct_delta_close(third);
    ct_delta_close(strange);
    ct_follower_close(follower);

    /* a limit that the changed rows do not fit into */
    assert_ok(ct_follower_open(base, 8 << 10, NULL, pool, &follower, &status));
    first = open_delta(&world, 1);
    assert_refused(CT_EXHAUSTED, "give more memory", ct_follower_stage(follower, first, &model, &status));
    assert_refused(CT_EXHAUSTED, "give more memory", ct_follower_stage(follower, first, &model, &status)); /* nothing has changed */
    float *logits = score_all(ct_follower_model(follower), world.asked);
    assert_memory_equal(logits, world.logits[0], ROWS * sizeof *logits);
    free(logits);
    ct_delta_close(first);
    ct_follower_close(follower);
    ct_pool_destroy(pool);
    free(base);
    free(bytes);
    free(path);
    free(copy);
    world_deinit(&world);
    world_deinit(&other);
}

int main(void) {
    if (access("/dev/shm", W_OK) == 0) (void)setenv("TEST_TMPDIR", "/dev/shm", 1); /* folders are synced often, which costs nothing there */
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal), cmocka_unit_test(test_follow), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
