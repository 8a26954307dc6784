/* clicktower synth: a log with a known truth. */
#include "data/synth.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "tools/cli/cli.h"

static ct_code truth_to_json(const ct_synth_truth *truth, json_t **out_json, ct_status *status) {
    json_t *json =
        json_pack("{s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "rows", (json_int_t)truth->rows, "clicks", (json_int_t)truth->clicks,
                  "best_auc", ct_json_real(truth->best_auc), "best_log_loss", ct_json_real(truth->best_log_loss), "constant_log_loss",
                  ct_json_real(truth->constant_log_loss), "tail_best_auc", ct_json_real(truth->tail_best_auc), "tail_best_log_loss",
                  ct_json_real(truth->tail_best_log_loss), "tail_constant_log_loss", ct_json_real(truth->tail_constant_log_loss));
    if (!json) return ct_fail_memory(status, 1024, "the truth");
    *out_json = json;
    return CT_OK;
}

static void print_truth(FILE *file, const ct_synth_truth *truth) {
    (void)fprintf(file, "rows %" PRId64 "\nclicks %" PRId64 "\n", truth->rows, truth->clicks);
    (void)fprintf(file, "best_auc %.6f\nbest_log_loss %.6f\nconstant_log_loss %.6f\n", truth->best_auc, truth->best_log_loss,
                  truth->constant_log_loss);
    (void)fprintf(file, "tail_best_auc %.6f\ntail_best_log_loss %.6f\ntail_constant_log_loss %.6f\n", truth->tail_best_auc,
                  truth->tail_best_log_loss, truth->tail_constant_log_loss);
}

ct_code ct_verb_synth(int argc, char **argv, ct_status *status) {
    ct_synth_options synth;
    ct_synth_options_init(&synth);
    int64_t items = synth.items, users = synth.users, vocabulary = synth.vocabulary, vector_dim = synth.vector_dim;
    bool json = false;
    synth.seed = 1;
    const ct_option options[] = {
        {"rows", "N", CT_OPTION_INTEGER, true, &synth.rows, "rows of the log", 1, 1e9, NULL},
        {"out", "FILE", CT_OPTION_TEXT, true, &synth.path,
         "the log, in the layout of --schema criteo; compressed where the name ends in .gz; - = "
         "standard output",
         0, 0, NULL},
        {"seed", "N", CT_OPTION_SEED, false, &synth.seed, "another seed, another world", 0, 0, NULL},
        {"vectors", "FILE.npy", CT_OPTION_TEXT, false, &synth.vectors_path,
         "also write the items' vectors, and their ids beside them (.txt)", 0, 0, NULL},
        {"schema-out", "FILE.yaml", CT_OPTION_TEXT, false, &synth.schema_path,
         "also write a schema with the sides, the unit and the item's vector", 0, 0, NULL},
        {"items", "N", CT_OPTION_INTEGER, false, &items, "items (C2)", 10, 1e6, NULL},
        {"users", "N", CT_OPTION_INTEGER, false, &users, "users (C1)", 1, 1e7, NULL},
        {"vocabulary", "N", CT_OPTION_INTEGER, false, &vocabulary, "values of the largest other id feature", 10, 1e6, NULL},
        {"tail", "N", CT_OPTION_INTEGER, false, &synth.tail,
         "14 id features without effect draw from a long tail of so many values (the largest of them), as in real logs; 40000000 is like "
         "Criteo's",
         0, 4e9, NULL},
        {"tail-slope", "S", CT_OPTION_NUMBER, false, &synth.tail_slope,
         "how steep --tail falls; 0 = all values as often, and 14 features of one size", 0, 3, NULL},
        {"vector-dim", "N", CT_OPTION_INTEGER, false, &vector_dim, "length of an item's vector", 1, 4096, NULL},
        {"rate", "P", CT_OPTION_NUMBER, false, &synth.rate, "click rate aimed at", 0.0001, 0.9999, NULL},
        {"signal", "S", CT_OPTION_NUMBER, false, &synth.signal, "standard deviation of the true logit", 0, 10, NULL},
        {"pairs-share", "P", CT_OPTION_NUMBER, false, &synth.pairs_share, "of the logit's variance, from pairs of features", 0, 1, NULL},
        {"item-share", "P", CT_OPTION_NUMBER, false, &synth.item_share, "of the logit's variance, from the item's appeal", 0, 1, NULL},
        {"content-share", "P", CT_OPTION_NUMBER, false, &synth.content_share, "of the item's appeal, explained by its vector", 0, 1, NULL},
        {"new-item-share", "P", CT_OPTION_NUMBER, false, &synth.new_item_share, "items that appear only after the first row", 0, 1, NULL},
        {"json", NULL, CT_OPTION_FLAG, false, &json, "print the truth as one JSON object", 0, 0, NULL},
    };
    static const ct_option_need needs[] = {{"tail-slope", "tail"}};
    const ct_command command = {
        "synth",
        "Makes a click log with a planted truth and prints what the best possible model would reach on it (tail: on "
        "its last fifth).",
        "  clicktower synth --rows 200000 --out log.tsv.gz\n"
        "  clicktower synth --rows 1000000 --seed 7 --out log.tsv.gz \\\n"
        "      --vectors items.npy --schema-out log.yaml",
        NULL,
        NULL,
        options,
        sizeof options / sizeof *options};
    CT_TRY(ct_command_parse_needs(&command, needs, sizeof needs / sizeof *needs, argc, argv, status));
    synth.items = (uint32_t)items;
    synth.users = (uint32_t)users;
    synth.vocabulary = (uint32_t)vocabulary;
    synth.vector_dim = (uint32_t)vector_dim;
    synth.stop = ct_stop_on_signals();
    ct_synth_truth truth;
    if (ct_synth_write(&synth, &truth, status) != CT_OK) return ct_stop_explain("no log was written", status);
    /* A log on standard output leaves standard error for the truth. */
    FILE *file = strcmp(synth.path, "-") == 0 ? stderr : stdout;
    if (!json) {
        print_truth(file, &truth);
        return CT_OK;
    }
    json_t *object = NULL;
    CT_TRY(truth_to_json(&truth, &object, status));
    (void)json_dumpf(object, file, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    (void)fputc('\n', file);
    json_decref(object);
    return CT_OK;
}
