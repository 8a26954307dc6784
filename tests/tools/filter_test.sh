#!/usr/bin/env bash
# Admission by a filter, as a user meets it: what it says of itself, when it is too small, from which run on which folder it goes on, and what
# does not go with it. (That it admits what exact counts do: inspect_test, by an independent count; the bits: digest_test, memory_test,
# resume_test, publish_test.)
. tests/frame.sh

# Tokens that come once, and one in four that comes again and again.
awk 'BEGIN {
    srand(7)
    for (r = 0; r < 24000; r++) {
        line = int(rand() * 1.3)
        for (i = 0; i < 13; i++) line = line "\t" int(rand() * 50)
        for (i = 0; i < 26; i++) line = line "\t" (i % 4 ? sprintf("%x", r * 26 + i) : int(rand() * 90))
        print line
    }
}' >log.tsv
model=(--schema criteo --model dnn --set 'deep=[4]' --set embedding.dim=2 --set numbers.buckets=false)
filter=(--set embedding.admission=filter)
train() { "$program" train "${model[@]}" "$@" >out 2>err </dev/null; }

echo "what it says of itself"
train "${filter[@]}" --set embedding.filter_mib=32 --train log.tsv --out large || wrong "train"
has out '^keys         admitted [0-9]+  waiting unknown  expired 0$'
has out '^filter       MiB 32\.0  fill 0\.0[0-9]+  error 0\.0000$'
grep -q warning err && wrong "a filter that is large enough is warned of: $(grep warning err)"
has large/model.yaml 'admission: filter, filter_mib: 32'
train --train log.tsv --out exact || wrong "train"
has exact/train.html '>admitted</th><td'
python3 - <<'END' || wrong "what the folders say"
import json, re
exact, large = (json.load(open(name + "/metrics.json")) for name in ("exact", "large"))
assert exact["keys"]["waiting"] > 400000 and "filter_bytes" not in exact["keys"], exact["keys"]
assert large["keys"]["waiting"] is None and large["keys"]["filter_bytes"] == 32 << 20, large["keys"]
assert large["keys"]["admitted"] == exact["keys"]["admitted"] and large["auc"] == exact["auc"]
assert 0 < large["keys"]["filter_fill"] < 0.05 and large["keys"]["filter_error"] < 1e-4
assert large["model"]["tables"][0]["bytes"] < exact["model"]["tables"][0]["bytes"] + (32 << 20) - 16 * exact["keys"]["waiting"]
for name, metrics in (("exact", exact), ("large", large)):
    page = open(name + "/train.html").read()
    for key, value in metrics["keys"].items():
        if isinstance(value, int):
            shown = re.search(r">%s</th><td[^>]*>([^<]*)<" % key.replace("_", " "), page).group(1)
            assert int(shown.replace(",", "")) == value, (name, key, shown, value)
END

echo "one that is too small"
train "${filter[@]}" --set embedding.filter_mib=1 --train log.tsv --out small || wrong "train"
has err 'warning: the filter that counts keys without a row is too full: [1-9][0-9] % of the keys .* raise embedding.filter_mib$'
python3 - <<'END' || wrong "a filter that is too small"
import json
exact, small = (json.load(open(name + "/metrics.json"))["keys"] for name in ("exact", "small"))
assert small["filter_error"] > 0.1 and small["filter_fill"] > 0.5, small
early = small["admitted"] - exact["admitted"]  # none is missing, and those too early are fewer than the filter's error says
assert 0 <= early <= small["filter_error"] * (exact["admitted"] + exact["waiting"]), (small, exact)
END

echo "from a model, or on"
train --init large --train log.tsv --out begun || wrong "--init from a filter to exact counts"
train "${filter[@]}" --init exact --train log.tsv --out begun || wrong "--init from exact counts to a filter"
has out 'rows taken, 0 keys still counted'
expect 1 "admission: filter, filter_mib: 32.*admission: filter, filter_mib: 16" train "${model[@]}" "${filter[@]}" \
    --set embedding.filter_mib=16 --train log.tsv --out large --resume
expect 0 '^trained ' train "${model[@]}" "${filter[@]}" --set embedding.filter_mib=32 --train log.tsv log.tsv --out large --resume
expect 0 ' filter_error$' inspect large

echo "what does not go with it"
expect 1 "embedding.admission is 'sketch'; it must be exact or filter" train "${model[@]}" --train log.tsv --out no --set embedding.admission=sketch
expect 1 'embedding.filter_mib is 0; it must be between 1 and 65536' train "${model[@]}" --train log.tsv --out no --set embedding.filter_mib=0
expect 1 'embedding.filter_mib is 8, but embedding.admission is exact; set it to filter' train "${model[@]}" --train log.tsv --out no \
    --set embedding.filter_mib=8
for count in 1 16; do
    expect 1 "embedding.min_count is $count, but with embedding.admission=filter it must be between 2 and 15" train "${model[@]}" "${filter[@]}" \
        --set embedding.min_count=$count --train log.tsv --out no
done
expect 1 'embedding.target_stats is true.*leave one of the two out' train "${model[@]}" "${filter[@]}" --set embedding.target_stats=true \
    --train log.tsv --out no
expect 1 'a memory limit of 40 MiB is too small' train "${model[@]}" "${filter[@]}" --memory 40 --train log.tsv --out no
[ ! -e no ] || wrong "something was written"
finish
