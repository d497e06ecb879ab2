#!/usr/bin/env bash
# Build both images and print their sizes. TAG, BASE, WHEELS (a folder of wheels) and NETWORK (of the build: `none`
# shows that nothing is fetched) are optional.
set -euo pipefail
cd "$(dirname "$0")/../.."
tag=${TAG:-0.1.0}
arguments=()
if [ -n "${BASE:-}" ]; then arguments+=(--build-arg "BASE=$BASE"); fi
if [ -n "${NETWORK:-}" ]; then arguments+=(--network "$NETWORK"); fi
if [ -n "${PIP_EXTRA_INDEX_URL:-}" ]; then arguments+=(--build-arg PIP_EXTRA_INDEX_URL); fi
if [ -n "${WHEELS:-}" ]; then
  if docker buildx version >/dev/null 2>&1; then
    arguments+=(--build-context "wheels=$WHEELS")
  else
    # Without buildx there are no named contexts: the folder becomes an image.
    tar -C "$WHEELS" -c . | docker import - pinloom-wheels:latest >/dev/null
    arguments+=(--build-arg WHEELS=pinloom-wheels:latest)
  fi
fi
for target in airflow ray; do
  DOCKER_BUILDKIT=1 docker build --file platform/images/Dockerfile --target "$target" --tag "pinloom-$target:$tag" "${arguments[@]}" .
done
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep "^pinloom-.*:$tag"
