# SPDX-License-Identifier: Apache-2.0
# The agent, its probe and Envoy's launcher: three static binaries, and iptables and ipset with the libraries they load.
# There is no shell in it. It runs as root, which iptables needs, with the
# capabilities that the chart grants. `make image` builds it with docker, podman or buildah.
#
# To build from a mirror, or by digest: --build-arg BUILDER=<image>.
ARG BUILDER=docker.io/library/golang:1.26.8-bookworm

FROM ${BUILDER} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends iptables ipset \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
# The files are chosen by the program that assembles the test cluster's images, so
# that what is tested there is what is released here.
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/ ./cmd/... \
 && go run ./test/cluster/images -nodevoy /out/nodevoy -agent-layer /out/layer.tar \
 && mkdir /out/root \
 && tar -xf /out/layer.tar -C /out/root

FROM scratch
COPY --from=build /out/root/ /
ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENTRYPOINT ["/usr/local/bin/nodevoy"]
