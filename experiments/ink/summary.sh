#!/bin/sh
# Mean ink of each digit, from a table with the columns label and ink (0 to 1).
# Writes a table and metrics.json into the output folder; whatever runs this logs them.
set -eu

out=${ESPALIER_OUTPUT_DIR:-.}
images=${ESPALIER_DATA_IMAGES:-experiments/ink/images.csv}

awk -F, -v least="${PARAM_MIN_INK:-0}" -v table="$out/ink.csv" -v metrics="$out/metrics.json" '
    NR > 1 && $2 >= least { count[$1]++; ink[$1] += $2; total++; sum += $2 }
    END {
        if (!total) { print "no image has so much ink" > "/dev/stderr"; exit 1 }
        print "label,images,mean_ink" > table
        for (label = 0; label < 10; label++)
            if (count[label]) printf "%d,%d,%.4f\n", label, count[label], ink[label] / count[label] > table
        printf "{\"images\": %d, \"mean_ink\": %.6f}\n", total, sum / total > metrics
    }
' "$images"

cat "$out/ink.csv"
