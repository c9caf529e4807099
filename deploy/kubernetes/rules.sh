#!/bin/sh
# Prints the rules as objects of the Prometheus operator: rules.sh | kubectl apply -f -
#
# Each file of rules becomes one PrometheusRule, as it stands, comments included. One thing is added: the
# label by which the operator recognises alerts of this namespace, which Alertmanager would not route otherwise.
set -eu
cd "$(dirname "$0")/../.."
for file in prometheus/rules/*.yml deploy/ha/rules/*.yml; do
    cat <<EOF
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: zapwatch-$(basename "$file" .yml)
  namespace: zapwatch
  labels:
    app.kubernetes.io/part-of: zapwatch
spec:
EOF
    sed -e 's/^        labels:$/&\n          namespace: zapwatch/' "$file" | sed 's/^./  &/'
done
