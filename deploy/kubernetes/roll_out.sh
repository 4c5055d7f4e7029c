#!/bin/sh
# Roll out an overlay: migrate first, and replace the pods only when that has worked.
# Usage: deploy/kubernetes/roll_out.sh production [more words for kubectl, such as --context=…]
# Harmless to repeat. When it fails, the pods of before go on serving.
set -eu

overlay=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)/overlays/${1:?which overlay? staging or production}
shift
namespace=$(sed -n 's/^namespace: //p' "$overlay/kustomization.yaml")
seconds=${ROLLOUT_TIMEOUT:-3600}

in_namespace() {
    kubectl --namespace "$namespace" "$@"
}

migration_has() {
    [ "$(in_namespace get job data-layer-migration "$@" \
        --output 'jsonpath={.status.conditions[?(@.status=="True")].type}' | tr ' ' '\n' | grep -x "$condition")" ]
}

# A Job cannot be changed: the one of the last rollout goes first.
in_namespace delete job data-layer-migration --ignore-not-found --wait "$@"
kubectl apply --kustomize "$overlay" --selector data-layer/step=before "$@"
echo "Waiting for the migration ..."
until condition=Complete && migration_has "$@"; do
    if condition=Failed && migration_has "$@" || [ "$seconds" -le 0 ]; then
        in_namespace logs job/data-layer-migration --tail=50 "$@" >&2 || true
        echo "The migration did not work, and nothing was rolled out. The tables are as before it." >&2
        exit 1
    fi
    seconds=$((seconds - 2))
    sleep 2
done
kubectl apply --kustomize "$overlay" "$@"
in_namespace rollout status deployment/data-layer --timeout=10m "$@"
