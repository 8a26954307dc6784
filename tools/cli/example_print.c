/* One request as JSON, as Python for clients/python, and as Go for the code that protoc-gen-go makes of proto/clicktower.proto. */
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>

#include "tools/cli/example.h"

typedef Clicktower__V1__Column column_message;

/* A text in double quotes with JSON's escapes, which Python's and Go's literals share. */
static void put_text(FILE *out, ProtobufCBinaryData text) {
    json_t *json = json_stringn(text.len ? (const char *)text.data : "", text.len);
    char *quoted = json ? json_dumps(json, JSON_ENCODE_ANY) : NULL;
    (void)fputs(quoted ? quoted : "\"\"", out); /* NULL: no memory */
    free(quoted);
    json_decref(json);
}

static void put_text_of(FILE *out, const char *text) {
    put_text(out, (ProtobufCBinaryData){__builtin_strlen(text), (uint8_t *)(uintptr_t)text});
}

/* With as few digits as give the float back. */
static void put_number(FILE *out, float value) {
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value) break;
    }
    (void)fputs(text, out);
}

/* The values of a column's lists, between `open` and `close`; `names`: what stands before the lists of tokens, integers, numbers, lengths.
 */
static void put_lists(FILE *out, const column_message *column, const char *const names[4], const char *open, const char *close) {
    const size_t counts[] = {column->n_tokens, column->n_integers, column->n_numbers, column->n_lengths};
    for (size_t list = 0; list < 4; list++) {
        if (!counts[list]) continue;
        (void)fprintf(out, ", %s%s", names[list], open);
        for (size_t i = 0; i < counts[list]; i++) {
            if (i) (void)fputs(", ", out);
            if (list == 0)
                put_text(out, column->tokens[i]);
            else if (list == 1)
                (void)fprintf(out, "%lld", (long long)column->integers[i]);
            else if (list == 2)
                put_number(out, column->numbers[i]);
            else
                (void)fprintf(out, "%u", column->lengths[i]);
        }
        (void)fputs(close, out);
    }
}

/* --- JSON: a column a line --- */

static void put_json_columns(FILE *out, const char *name, column_message *const *columns, size_t count) {
    static const char *const names[] = {"\"tokens\": ", "\"integers\": ", "\"numbers\": ", "\"lengths\": "};
    (void)fprintf(out, "  \"%s\": [", name);
    for (size_t c = 0; c < count; c++) {
        (void)fprintf(out, "%s\n    {\"name\": ", c ? "," : "");
        put_text(out, columns[c]->name);
        put_lists(out, columns[c], names, "[", "]");
        (void)fputc('}', out);
    }
    (void)fprintf(out, "%s],\n", count ? "\n  " : "");
}

void ct_example_print_json(FILE *out, const ct_example *example) {
    const Clicktower__V1__ScoreRequest *r = example->request;
    (void)fprintf(out, "{\n");
    if (r->model.len) {
        (void)fprintf(out, "  \"model\": ");
        put_text(out, r->model);
        (void)fprintf(out, ",\n");
    }
    put_json_columns(out, "context", r->context, r->n_context);
    put_json_columns(out, "candidates", r->candidates, r->n_candidates);
    (void)fprintf(out, "  \"candidate_count\": %u\n}\n", r->candidate_count);
}

/* --- Python: a candidate a line --- */

/* Where the values of row `row` begin. */
static size_t first_value(const column_message *column, size_t row) {
    if (!column->n_lengths) return row;
    size_t at = 0;
    for (size_t r = 0; r < row; r++) at += column->lengths[r];
    return at;
}

static void put_python_value(FILE *out, const column_message *column, size_t row) {
    const size_t first = first_value(column, row), count = column->n_lengths ? column->lengths[row] : 1;
    const bool many = column->n_lengths && (column->n_tokens || column->n_integers);
    if (count == 0) {
        (void)fprintf(out, "None"); /* a missing number, or an id without values */
        return;
    }
    if (many) (void)fputc('[', out);
    for (size_t i = first; i < first + count; i++) {
        if (i > first) (void)fprintf(out, ", ");
        if (column->n_tokens)
            put_text(out, column->tokens[i]);
        else if (column->n_integers)
            (void)fprintf(out, "%lld", (long long)column->integers[i]);
        else
            put_number(out, column->numbers[i]);
    }
    if (many) (void)fputc(']', out);
}

static void put_python_row(FILE *out, column_message *const *columns, size_t count, size_t row) {
    (void)fputc('{', out);
    for (size_t c = 0; c < count; c++) {
        (void)fprintf(out, "%s", c ? ", " : "");
        put_text(out, columns[c]->name);
        (void)fprintf(out, ": ");
        put_python_value(out, columns[c], row);
    }
    (void)fputc('}', out);
}

void ct_example_print_python(FILE *out, const ct_example *example) {
    const Clicktower__V1__ScoreRequest *r = example->request;
    (void)fprintf(out, "import clicktower  # clients/python of the repository\n\ncontext = ");
    put_python_row(out, r->context, r->n_context, 0);
    (void)fprintf(out, "\ncandidates = ");
    if (r->n_candidates == 0) {
        (void)fprintf(out, "%u  # the model needs nothing of them: how many\n", r->candidate_count);
    } else {
        (void)fprintf(out, "[\n");
        for (size_t row = 0; row < r->candidate_count; row++) {
            (void)fprintf(out, "    ");
            put_python_row(out, r->candidates, r->n_candidates, row);
            (void)fprintf(out, ",\n");
        }
        (void)fprintf(out, "]\n");
    }
    (void)fprintf(out, "with clicktower.Client(");
    put_text_of(out, example->to);
    if (r->model.len) {
        (void)fprintf(out, ", model=");
        put_text(out, r->model);
    }
    (void)fprintf(out, ") as client:\n    print(client.score(candidates, context))\n");
}

/* --- Go: a column a line --- */

static void put_go_columns(FILE *out, const char *name, column_message *const *columns, size_t count) {
    static const char *const names[] = {"Tokens: []string", "Integers: []int64", "Numbers: []float32", "Lengths: []uint32"};
    if (count == 0) return;
    (void)fprintf(out, "\t\t%s: []*pb.Column{\n", name);
    for (size_t c = 0; c < count; c++) {
        (void)fprintf(out, "\t\t\t{Name: ");
        put_text(out, columns[c]->name);
        put_lists(out, columns[c], names, "{", "}");
        (void)fprintf(out, "},\n");
    }
    (void)fprintf(out, "\t\t},\n");
}

void ct_example_print_go(FILE *out, const ct_example *example) {
    const Clicktower__V1__ScoreRequest *r = example->request;
    (void)fprintf(out,
                  "// Scores one request. It is main.go in a folder of its own, beside clicktower.proto, for gRPC 1.63 or newer:\n"
                  "//\n"
                  "//\tgo install google.golang.org/protobuf/cmd/protoc-gen-go@latest\n"
                  "//\tgo install google.golang.org/grpc/cmd/protoc-gen-go-grpc@latest\n"
                  "//\texport PATH=\"$PATH:$(go env GOPATH)/bin\"\n"
                  "//\tgo mod init clicktower\n"
                  "//\tprotoc --go_out=. --go_opt=module=clicktower --go-grpc_out=. --go-grpc_opt=module=clicktower clicktower.proto\n"
                  "//\tgo mod tidy\n"
                  "//\tgo run .\n"
                  "package main\n\n"
                  "import (\n"
                  "\t\"context\"\n"
                  "\t\"fmt\"\n"
                  "\t\"log\"\n"
                  "\t\"time\"\n\n"
                  "\t\"google.golang.org/grpc\"\n"
                  "\t\"google.golang.org/grpc/credentials/insecure\"\n\n"
                  "\tpb \"clicktower/v1\"\n"
                  ")\n\n"
                  "func main() {\n"
                  "\tconnection, err := grpc.NewClient(");
    put_text_of(out, example->to);
    (void)fprintf(out,
                  ", grpc.WithTransportCredentials(insecure.NewCredentials()))\n"
                  "\tif err != nil {\n"
                  "\t\tlog.Fatal(err)\n"
                  "\t}\n"
                  "\tdefer connection.Close()\n"
                  "\tctx, cancel := context.WithTimeout(context.Background(), time.Second)\n"
                  "\tdefer cancel()\n"
                  "\tanswer, err := pb.NewScorerClient(connection).Score(ctx, &pb.ScoreRequest{\n");
    if (r->model.len) {
        (void)fprintf(out, "\t\tModel: ");
        put_text(out, r->model);
        (void)fprintf(out, ",\n");
    }
    put_go_columns(out, "Context", r->context, r->n_context);
    put_go_columns(out, "Candidates", r->candidates, r->n_candidates);
    (void)fprintf(out,
                  "\t\tCandidateCount: %u,\n"
                  "\t})\n"
                  "\tif err != nil {\n"
                  "\t\tlog.Fatal(err)\n"
                  "\t}\n"
                  "\tfmt.Println(answer.Outputs[0].Probabilities)\n"
                  "}\n",
                  r->candidate_count);
}
