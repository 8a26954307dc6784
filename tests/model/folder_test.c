/* The model folder: what is written comes back, a broken or newer folder is refused by name, and nothing that is no model is overwritten.
 */
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "tests/model/fixture.h"

enum { LOG_ROWS = 1500, ROWS = 400, BATCH_ROWS = 256, SMALL_BYTES = 8192, SAMPLES = 60 };

static shop the_shop;

static int set_up(void **state) {
    shop_init(&the_shop, LOG_ROWS, ROWS);
    *state = &the_shop;
    return 0;
}

static int tear_down(void **state) {
    shop_deinit(*state);
    return 0;
}

static ct_model *fresh(const shop *f, const char *name) {
    const char *sets[] = {"embedding.dim=6", "vector.adapter=3", "embedding.min_count=3", "deep=[24,16]"};
    return make_model(f->schema, name, sets, strcmp(name, "lr") == 0 || strcmp(name, "fm") == 0 ? 3 : 4, 11, BATCH_ROWS, f->pool);
}

/* A saved model; malloc'd folder. */
static char *saved(const shop *f, const char *model_name, const char *folder_name) {
    char *folder = temp_path(f->folder, folder_name);
    ct_model *model = fresh(f, model_name);
    train_on(model, f->log, 0, 0, SIZE_MAX);
    save_model(model, folder);
    ct_model_destroy(model);
    return folder;
}

static void what_is_saved_comes_back(void **state) {
    const shop *f = *state;
    static const char *const names[] = {"lr", "dnn", "dcn-v2", "fm", "deepfm", "dlrm"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *folder = temp_path(f->folder, names[i]), before[CT_DIGEST_HEX_BYTES], after[CT_DIGEST_HEX_BYTES];
        ct_model *model = fresh(f, names[i]);
        train_on(model, f->log, 0, 0, SIZE_MAX);
        digest_of(model, before);
        float *expected = score_all(model, f->rows);
        save_model(model, folder);
        digest_of(model, after);
        assert_string_equal(before, after); /* saving changes nothing */
        ct_model *trainable = open_model(folder, CT_MODEL_TRAIN, f->pool), *readable = open_model(folder, CT_MODEL_READ, f->pool);
        digest_of(trainable, after);
        assert_string_equal(before, after);
        digest_of(readable, after);
        assert_string_equal(before, after);
        ct_model *const opened[] = {trainable, readable};
        for (size_t o = 0; o < 2; o++) {
            float *got = score_all(opened[o], f->rows);
            assert_memory_equal(expected, got, ROWS * sizeof *got);
            free(got);
            assert_int_equal(ct_model_rows(opened[o]), LOG_ROWS);
            assert_int_equal(ct_model_step(opened[o]), (LOG_ROWS + BATCH_ROWS - 1) / BATCH_ROWS);
            assert_int_equal(ct_model_seed(opened[o]), 11);
            assert_int_equal(ct_model_batch_rows(opened[o]), BATCH_ROWS);
            assert_true(ct_model_created_ms(opened[o]) > 0);
            assert_string_equal(ct_model_instruction_set(opened[o]), ct_model_instruction_set(model));
            assert_int_equal(ct_model_precision(opened[o]), ct_model_precision(model));
            assert_int_equal(ct_model_schema(opened[o])->hash, f->schema->hash);
            assert_string_equal(ct_model_output_name(opened[o], 0), "click");
            ct_model_destroy(opened[o]);
        }
        free(expected);
        free(folder);
        ct_model_destroy(model);
    }
}

static void training_goes_on_as_if_never_stopped(void **state) {
    const shop *f = *state;
    for (size_t cut = 1; cut <= 5; cut += 2) {
        char *folder = temp_path(f->folder, "half"), whole[CT_DIGEST_HEX_BYTES], broken[CT_DIGEST_HEX_BYTES];
        ct_model *model = fresh(f, "dcn-v2");
        train_on(model, f->log, 0, 0, SIZE_MAX);
        digest_of(model, whole);
        ct_model_destroy(model);
        model = fresh(f, "dcn-v2");
        train_on(model, f->log, 0, 0, cut);
        save_model(model, folder);
        ct_model_destroy(model);
        model = open_model(folder, CT_MODEL_TRAIN, f->pool);
        train_on(model, f->log, 0, cut, SIZE_MAX);
        digest_of(model, broken);
        assert_string_equal(whole, broken);
        ct_model_destroy(model);
        free(folder);
    }
}

static void a_model_for_reading_is_only_read(void **state) {
    const shop *f = *state;
    char *folder = saved(f, "lr", "read"), *other = temp_path(f->folder, "other");
    ct_model *model = open_model(folder, CT_MODEL_READ, f->pool);
    float logits[ROWS];
    json_t *metrics = json_object();
    assert_refused(CT_INVALID, "reading", ct_model_train(model, f->rows, 0, logits, &status));
    assert_refused(CT_INVALID, "reading", ct_model_save(model, other, metrics, "", &status));
    assert_false(ct_path_exists(other));
    json_decref(metrics);
    ct_model_destroy(model);
    free(folder);
    free(other);
}

/* Every file's name, size and digest, one after the other; malloc'd. */
static char *listing(const char *folder) {
    ct_file_list list;
    char *text = strdup("");
    assert_ok(ct_folder_list(folder, &list, &status));
    for (size_t i = 0; i < list.count; i++) {
        char hex[CT_DIGEST_HEX_BYTES], *path = temp_path(folder, list.names[i]), *longer = NULL;
        uint64_t bytes = 0;
        assert_ok(ct_file_digest(path, hex, &bytes, &status));
        assert_true(asprintf(&longer, "%s%s %llu %s\n", text, list.names[i], (unsigned long long)bytes, hex) > 0);
        free(text);
        free(path);
        text = longer;
    }
    ct_file_list_deinit(&list);
    return text;
}

static void opening_leaves_the_folder_alone(void **state) {
    const shop *f = *state;
    char *folder = saved(f, "dcn-v2", "alone"), *before = listing(folder);
    static const ct_model_mode modes[] = {CT_MODEL_READ, CT_MODEL_TRAIN};
    for (size_t i = 0; i < 2; i++) {
        ct_model *model = open_model(folder, modes[i], f->pool);
        if (modes[i] == CT_MODEL_TRAIN) train_on(model, f->log, 1, 0, 2);
        ct_model_destroy(model);
        char *after = listing(folder);
        assert_string_equal(before, after);
        free(after);
    }
    free(before);
    free(folder);
}

static void a_moved_folder_opens(void **state) {
    const shop *f = *state;
    char *folder = saved(f, "dcn-v2", "first-place"), *elsewhere = temp_path(f->folder, "a/b"),
         *moved = temp_path(elsewhere, "second place");
    ct_model *model = open_model(folder, CT_MODEL_READ, f->pool);
    float *expected = score_all(model, f->rows);
    ct_model_destroy(model);
    assert_ok(ct_folder_create(elsewhere, &status));
    assert_int_equal(rename(folder, moved), 0);
    char *npy = temp_path(f->folder, "items.npy"), *gone = temp_path(f->folder, "gone.npy");
    assert_int_equal(rename(npy, gone), 0); /* the vectors are in the folder */
    model = open_model(moved, CT_MODEL_READ, f->pool);
    float *got = score_all(model, f->rows);
    assert_memory_equal(expected, got, ROWS * sizeof *got);
    ct_model_destroy(model);
    ct_model_destroy(open_model(moved, CT_MODEL_TRAIN, f->pool));
    assert_int_equal(rename(gone, npy), 0);
    free(npy);
    free(gone);
    free(expected);
    free(got);
    free(folder);
    free(elsewhere);
    free(moved);
}

/* --- broken folders --- */

static void write_bytes(const char *path, const char *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void refuse_open(const shop *f, const char *folder, ct_code expected, const char *word) {
    ct_model *model = NULL;
    assert_refused(expected, word, ct_model_open(folder, CT_MODEL_READ, NULL, f->pool, &model, &status));
    assert_null(model);
}

static void every_flipped_byte_is_found(void **state) {
    const shop *f = *state;
    char *folder = saved(f, "dcn-v2", "flipped");
    ct_file_list list;
    size_t flips = 0;
    assert_ok(ct_folder_list(folder, &list, &status));
    assert_true(list.count >= 8);
    for (size_t i = 0; i < list.count; i++) {
        char *path = temp_path(folder, list.names[i]), *data = NULL;
        size_t bytes = 0;
        assert_ok(ct_file_read(path, (size_t)1 << 30, &data, &bytes, &status));
        const size_t step = bytes <= SMALL_BYTES ? 1 : bytes / SAMPLES;
        FILE *file = fopen(path, "r+b");
        assert_non_null(file);
        setbuf(file, NULL);
        for (size_t at = 0; at < bytes; at = at + step < bytes || at == bytes - 1 ? at + step : bytes - 1) {
            const unsigned char old = (unsigned char)data[at], bad = (unsigned char)(old ^ (1u << flips++ % 8));
            assert_int_equal(pwrite(fileno(file), &bad, 1, (off_t)at), 1);
            refuse_open(f, folder, CT_CORRUPT, path);
            assert_int_equal(pwrite(fileno(file), &old, 1, (off_t)at), 1);
        }
        assert_int_equal(fclose(file), 0);
        if (bytes > 0) { /* cut by a byte, and a byte too long */
            write_bytes(path, data, bytes - 1);
            refuse_open(f, folder, CT_CORRUPT, path);
            data[bytes] = '\n';
            write_bytes(path, data, bytes + 1);
            refuse_open(f, folder, CT_CORRUPT, path);
        }
        write_bytes(path, data, bytes);
        free(data);
        free(path);
    }
    print_message("%zu bytes of %zu files\n", flips, list.count);
    ct_file_list_deinit(&list);
    ct_model_destroy(open_model(folder, CT_MODEL_READ, f->pool)); /* all is as before */
    free(folder);
}

/* A file that has two names is read once; each of them is compared with what the manifest says of it. */
static void a_link_to_another_file_is_found(void **state) {
    const shop *f = *state;
    char *folder = saved(f, "lr", "linked"), *aside = temp_path(f->folder, "aside"), *before = NULL;
    ct_file_list list;
    size_t links = 0;
    assert_ok(ct_folder_list(folder, &list, &status));
    for (size_t i = 0; i < list.count; i++) {
        char *path = temp_path(folder, list.names[i]);
        struct stat info;
        assert_int_equal(stat(path, &info), 0);
        if (strcmp(list.names[i], "manifest") == 0 || info.st_size == 0) {
            free(path);
            continue;
        }
        if (before) {
            assert_int_equal(rename(path, aside), 0);
            assert_int_equal(link(before, path), 0);
            refuse_open(f, folder, CT_CORRUPT, path);
            assert_int_equal(rename(aside, path), 0);
            links++;
        }
        free(before);
        before = path;
    }
    assert_true(links >= 6);
    ct_file_list_deinit(&list);
    ct_model_destroy(open_model(folder, CT_MODEL_READ, f->pool));
    free(before);
    free(folder);
    free(aside);
}

static void a_missing_file_is_named(void **state) {
    const shop *f = *state;
    char *folder = saved(f, "lr", "missing"), *aside = temp_path(f->folder, "aside");
    ct_file_list list;
    assert_ok(ct_folder_list(folder, &list, &status));
    for (size_t i = 0; i < list.count; i++) {
        char *path = temp_path(folder, list.names[i]);
        assert_int_equal(rename(path, aside), 0);
        if (strcmp(list.names[i], "manifest") == 0) {
            assert_false(ct_model_folder_is(folder));
            refuse_open(f, folder, CT_NOT_FOUND, folder);
        } else {
            refuse_open(f, folder, CT_CORRUPT, path);
        }
        assert_int_equal(rename(aside, path), 0);
        free(path);
    }
    ct_file_list_deinit(&list);
    assert_true(ct_model_folder_is(folder));
    char *nowhere = temp_path(f->folder, "nowhere");
    refuse_open(f, nowhere, CT_NOT_FOUND, nowhere);
    free(nowhere);
    free(folder);
    free(aside);
}

/* --- the manifest, changed and given a right checksum --- */

static json_t *manifest_of(const char *folder) {
    json_t *manifest = NULL;
    assert_ok(ct_model_manifest(folder, true, &manifest, &status));
    return manifest;
}

static void write_manifest(const char *folder, const json_t *manifest) {
    char *path = temp_path(folder, "manifest"), *text = json_dumps(manifest, JSON_INDENT(1)), *whole = NULL, hex[CT_DIGEST_HEX_BYTES];
    ct_digest *digest = NULL;
    assert_ok(ct_digest_create(&digest, &status));
    ct_digest_update(digest, text, strlen(text));
    ct_digest_hex(digest, hex);
    const int bytes = asprintf(&whole, "%s\nchecksum %s\n", text, hex);
    assert_true(bytes > 0);
    write_bytes(path, whole, (size_t)bytes);
    ct_digest_destroy(digest);
    free(whole);
    free(text);
    free(path);
}

static void a_newer_folder_is_refused_by_name(void **state) {
    const shop *f = *state;
    char *folder = saved(f, "lr", "newer");
    json_t *good = manifest_of(folder);
    write_manifest(folder, good);
    ct_model_destroy(open_model(folder, CT_MODEL_READ, f->pool)); /* the test writes manifests that are read */

    json_t *changed = json_deep_copy(good);
    json_object_set_new(changed, "version", json_integer(7)); /* a later version that this program may read */
    write_manifest(folder, changed);
    ct_model_destroy(open_model(folder, CT_MODEL_READ, f->pool));
    json_object_set_new(changed, "least_reader_version", json_integer(5));
    write_manifest(folder, changed);
    refuse_open(f, folder, CT_UNSUPPORTED, "format version 7, which needs a program that reads version 5; this one reads version 1");
    json_object_set_new(changed, "required_features", json_pack("[s, s]", "low-rank-rows", "tt-cores"));
    write_manifest(folder, changed);
    refuse_open(f, folder, CT_UNSUPPORTED, "version 5 and knows the features 'low-rank-rows', 'tt-cores'; this one reads version 1");
    json_decref(changed);

    changed = json_deep_copy(good);
    json_object_set_new(changed, "required_features", json_pack("[s]", "low-rank-rows"));
    write_manifest(folder, changed);
    refuse_open(f, folder, CT_UNSUPPORTED, "'low-rank-rows'");
    json_decref(changed);

    static const char *const members[] = {"format", "version", "least_reader_version", "required_features", "files",           "rows",
                                          "step",   "seed",    "batch_rows",           "precision",         "instruction_set", "digest",
                                          "vectors"};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        changed = json_deep_copy(good);
        json_object_del(changed, members[i]);
        write_manifest(folder, changed);
        refuse_open(f, folder, CT_CORRUPT, members[i]);
        json_object_set_new(changed, members[i], json_true());
        write_manifest(folder, changed);
        refuse_open(f, folder, CT_CORRUPT, members[i]);
        json_decref(changed);
    }

    changed = json_deep_copy(good);
    json_object_set_new(changed, "batch_rows", json_integer(0));
    write_manifest(folder, changed);
    refuse_open(f, folder, CT_CORRUPT, "batch_rows");
    json_decref(changed);
    json_decref(good);
    free(folder);
}

/* Whole by its checksums, but not what a training writes. */
static void what_no_training_has_written_is_refused(void **state) {
    const shop *f = *state;
    static const struct {
        const char *member, *value; /* JSON */
        ct_code code;
    } cases[] = {{"rows", "-1", CT_CORRUPT},
                 {"step", "-1", CT_CORRUPT},
                 {"tower_step", "-9223372036854775808", CT_CORRUPT},
                 {"epoch", "4294967296", CT_CORRUPT},
                 {"epoch_rows", "-1", CT_CORRUPT},
                 {"batch_rows", "1048577", CT_CORRUPT},
                 {"digest", "\"00\"", CT_CORRUPT},
                 {"precision", "\"fp8\"", CT_UNSUPPORTED},
                 {"vectors", "{\"item_text\": \"ids\", \"likes_text\": \"ids\"}", CT_CORRUPT}}; /* rows are no vectors */
    char *folder = saved(f, "dnn", "made"), *path = temp_path(folder, "manifest"), *spec = temp_path(folder, "model.yaml");
    json_t *good = manifest_of(folder), *changed = NULL, *file = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        changed = json_deep_copy(good);
        json_object_set_new(changed, cases[i].member, json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
        write_manifest(folder, changed);
        refuse_open(f, folder, cases[i].code, i + 1 < sizeof cases / sizeof *cases ? cases[i].member : "item_text");
        json_decref(changed);
    }
    static const char *const names[] = {"/etc/hostname", "../missing", "tables/../../x", "..", "tables//CURRENT", "tables/", ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        changed = json_deep_copy(good);
        json_array_append_new(json_object_get(changed, "files"),
                              json_pack("{s:s, s:i, s:s}", "name", names[i], "bytes", 0, "xxh3_128", ""));
        write_manifest(folder, changed);
        refuse_open(f, folder, CT_CORRUPT, path);
        json_decref(changed);
    }
    /* A few bytes that ask for 16 GiB of weights. */
    char hex[CT_DIGEST_HEX_BYTES];
    uint64_t bytes = 0;
    size_t index;
    const char huge[] =
        "model: dnn\nembedding: {dim: 6}\nvector: {adapter: 3}\ndeep: [16384,16384,16384,16384,16384,16384,16384,16384,16384]\n";
    write_bytes(spec, huge, sizeof huge - 1);
    assert_ok(ct_file_digest(spec, hex, &bytes, &status));
    json_array_foreach(json_object_get(good, "files"), index, file) {
        if (strcmp(json_string_value(json_object_get(file, "name")), "model.yaml") != 0) continue;
        json_object_set_new(file, "bytes", json_integer((json_int_t)bytes));
        json_object_set_new(file, "xxh3_128", json_string(hex));
    }
    write_manifest(folder, good);
    refuse_open(f, folder, CT_CORRUPT, "tower.safetensors: tower: it has 21");
    json_decref(good);
    free(folder);
    free(path);
    free(spec);
}

/* --- what stands at the name --- */

static void only_a_model_is_replaced(void **state) {
    const shop *f = *state;
    char *folder = temp_path(f->folder, "taken"), *inside = temp_path(folder, "thesis.txt"), first[CT_DIGEST_HEX_BYTES],
         second[CT_DIGEST_HEX_BYTES], got[CT_DIGEST_HEX_BYTES];
    json_t *metrics = json_object();
    ct_model *model = fresh(f, "lr");
    train_on(model, f->log, 0, 0, 2);
    digest_of(model, first);

    assert_ok(ct_folder_create(folder, &status));
    write_bytes(inside, "years of work", 13);
    assert_refused(CT_EXISTS, folder, ct_model_folder_replaceable(folder, &status));
    assert_refused(CT_EXISTS, folder, ct_model_save(model, folder, metrics, "", &status));
    assert_true(ct_path_exists(inside));
    assert_ok(ct_folder_remove(folder, &status));
    assert_ok(ct_folder_create(folder, &status)); /* an empty folder holds nobody's work */
    assert_ok(ct_model_folder_replaceable(folder, &status));
    save_model(model, folder);
    digest_of(model, got);
    assert_string_equal(first, got);
    assert_ok(ct_folder_remove(folder, &status));
    write_bytes(folder, "a file", 6);
    assert_refused(CT_EXISTS, folder, ct_model_save(model, folder, metrics, "", &status));
    assert_int_equal(remove(folder), 0);

    assert_ok(ct_model_folder_replaceable(folder, &status));
    save_model(model, folder);
    train_on(model, f->log, 0, 2, 4);
    digest_of(model, second);
    assert_string_not_equal(first, second);
    assert_ok(ct_model_folder_replaceable(folder, &status));
    save_model(model, folder);
    ct_model_destroy(model);
    model = open_model(folder, CT_MODEL_READ, f->pool);
    digest_of(model, got);
    assert_string_equal(second, got);
    ct_model_destroy(model);

    char *beside = NULL; /* nothing is left over */
    assert_true(asprintf(&beside, "ls '%s' | grep -c '^taken'", f->folder) > 0);
    FILE *list = popen(beside, "r"); /* NOLINT */
    int left = 0;
    assert_int_equal(fscanf(list, "%d", &left), 1);
    pclose(list);
    assert_int_equal(left, 1);
    free(beside);
    json_decref(metrics);
    free(folder);
    free(inside);
}

static void the_folder_says_what_it_holds(void **state) {
    const shop *f = *state;
    char *folder = saved(f, "dcn-v2", "contents"), *path = temp_path(folder, "metrics.json"), *curve = temp_path(folder, "curve.jsonl");
    json_t *manifest = manifest_of(folder), *metrics = NULL;
    ct_file_list list;
    assert_ok(ct_folder_list(folder, &list, &status));
    assert_int_equal(json_array_size(json_object_get(manifest, "files")), list.count - 1); /* all but itself */
    ct_file_list_deinit(&list);
    static const char *const files[] = {"schema.yaml", "model.yaml", "tower.safetensors", "tables/store.json"};
    for (size_t i = 0; i < 4; i++) {
        char *file = temp_path(folder, files[i]);
        assert_true(ct_path_exists(file));
        free(file);
    }
    assert_string_equal(json_string_value(json_object_get(manifest, "schema")), "shop");
    assert_string_equal(json_string_value(json_object_get(manifest, "model")), "dcn-v2");
    assert_ok(ct_json_load(path, &metrics, &status));
    assert_true(json_is_null(json_object_get(metrics, "auc")));
    char *text = NULL;
    size_t bytes = 0;
    assert_ok(ct_file_read(curve, 1 << 20, &text, &bytes, &status));
    assert_string_equal(text, "{\"rows\":0}\n");
    free(text);
    free(path);
    free(curve);
    json_decref(metrics);
    json_decref(manifest);
    free(folder);
}

/* Equal content, equal digest; another seed, row, batch size or order is another content. */
static void the_digest_is_of_the_content(void **state) {
    const shop *f = *state;
    char base[CT_DIGEST_HEX_BYTES], other[CT_DIGEST_HEX_BYTES];
    const char *sets[] = {"embedding.dim=3", "deep=[5]"};
    ct_model *model = make_model(f->schema, "dnn", sets, 2, 1, BATCH_ROWS, f->pool);
    train_on(model, f->log, 0, 0, 3);
    digest_of(model, base);
    ct_model_destroy(model);
    for (int change = 0; change < 5; change++) {
        const char *changed[] = {"embedding.dim=3", "deep=[5]", change == 4 ? "optimizer.epsilon=2e-8" : "deep=[5]"};
        model = make_model(f->schema, "dnn", changed, 3, change == 1 ? 2 : 1, change == 2 ? BATCH_ROWS + 1 : BATCH_ROWS, f->pool);
        train_on(model, f->log, 0, 0, change == 3 ? 2 : 3);
        digest_of(model, other);
        if (change == 0)
            assert_string_equal(base, other);
        else
            assert_string_not_equal(base, other);
        ct_model_destroy(model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_saved_comes_back),
                                       cmocka_unit_test(training_goes_on_as_if_never_stopped),
                                       cmocka_unit_test(a_model_for_reading_is_only_read),
                                       cmocka_unit_test(opening_leaves_the_folder_alone),
                                       cmocka_unit_test(a_moved_folder_opens),
                                       cmocka_unit_test(every_flipped_byte_is_found),
                                       cmocka_unit_test(a_link_to_another_file_is_found),
                                       cmocka_unit_test(a_missing_file_is_named),
                                       cmocka_unit_test(a_newer_folder_is_refused_by_name),
                                       cmocka_unit_test(what_no_training_has_written_is_refused),
                                       cmocka_unit_test(only_a_model_is_replaced),
                                       cmocka_unit_test(the_folder_says_what_it_holds),
                                       cmocka_unit_test(the_digest_is_of_the_content)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
