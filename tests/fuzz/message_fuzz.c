/* JSON that the admin port takes over HTTP: the first byte chooses between the bodies of POST /v1/score and POST /v1/feedback. A body is
 * refused with a message that may be sent back, or becomes bytes that the gRPC side unpacks, and whose JSON becomes the same bytes again.
 */
#include <jansson.h>

#include "serving/decode.h"
#include "serving/message_json.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_name = "message_fuzz";

enum { SCORE, FEEDBACK, KINDS };

static void check_refusal(ct_code code, const ct_status *status) {
    FUZZ_MUST((code == CT_INVALID || code == CT_EXHAUSTED) && status->message[0] != '\0');
    json_t *text = json_string(status->message);
    FUZZ_MUST(text != NULL);
    json_decref(text);
}

static void read_body(const ProtobufCMessageDescriptor *type, const char *body, size_t bytes) {
    ct_status status = CT_STATUS_INIT;
    uint8_t *packed = NULL, *packed_again = NULL;
    size_t packed_bytes = 0, bytes_again = 0;
    ProtobufCMessage *message = NULL;
    ct_arena arena;
    ct_arena_init(&arena, 0);
    ct_code code = ct_message_pack_json(&arena, type, body, bytes, &packed, &packed_bytes, &status);
    if (code == CT_OK) {
        code = ct_message_unpack(&arena, type, packed, packed_bytes, "message", &message, &status);
        FUZZ_MUST(code == CT_OK || code == CT_EXHAUSTED);
    }
    if (code == CT_OK) {
        json_t *json = ct_message_to_json(message);
        char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(17));
        FUZZ_MUST(json != NULL && text != NULL);
        FUZZ_MUST(ct_message_pack_json(&arena, type, text, strlen(text), &packed_again, &bytes_again, &status) == CT_OK);
        FUZZ_MUST(bytes_again == packed_bytes && memcmp(packed, packed_again, packed_bytes) == 0);
        free(text);
        json_decref(json);
    } else {
        check_refusal(code, &status);
    }
    ct_arena_deinit(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes == 0) return 0;
    read_body(data[0] % KINDS == SCORE ? &clicktower__v1__score_request__descriptor : &clicktower__v1__feedback_request__descriptor,
              (const char *)data + 1, bytes - 1);
    return 0;
}

size_t fuzz_seed(size_t index, uint8_t out[FUZZ_MAX_BYTES]) {
    static const fuzz_text seeds[] = {
        {SCORE,
         "{\"model\": \"m\", \"unit\": \"u\", \"request_id\": \"r-1\", \"context\": [{\"name\": \"user\", \"tokens\": [\"anna\"]}], "
         "\"candidates\": [{\"name\": \"item\", \"integers\": [1, -2, \"9223372036854775807\", 4.0]}, {\"name\": \"price\", \"numbers\": "
         "[1.5, \"NaN\", \"-Infinity\", \"2e-3\"], \"lengths\": [1, 1, 2, 0]}], \"candidateCount\": 4, \"top_k\": 2, \"logits\": true}"},
        {SCORE, "{\"candidates\":[{\"name\":\"i\",\"integers\":[9007199254740993,9007199254740993.0,1e18]}],\"unit\":null}"},
        {SCORE, "{\"unit\": \"\\u00e9\\ud834\\udd1e\", \"context\": [], \"candidates\": [{}]}"},
        {FEEDBACK,
         "{\"events\": [{\"requestId\": \"r\", \"candidate\": 3, \"event\": \"shown\", \"position\": 1, \"timeMs\": \"1700000000000\"}, "
         "{\"request_id\": \"r\", \"candidate\": 0, \"event\": \"buy\", \"value\": 2.5, \"event_id\": \"e\"}]}"},
        {FEEDBACK, "{\"events\": [{\"value\": 1e308}, {\"value\": \"NaN\"}, {\"candidate\": 4294967295}]}"},
    };
    return index < sizeof seeds / sizeof *seeds ? fuzz_put_text(&seeds[index], out) : 0;
}
