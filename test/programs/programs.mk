# SPDX-License-Identifier: Apache-2.0
# Servers and clients of other projects, through nodevoy; included by the Makefile.

PROGRAM_PACKAGES := nginx apache2-bin nodejs default-jdk-headless curl nghttp2-client netcat-openbsd netcat-traditional \
	mariadb-server-core mariadb-client-core postgresql redis-server memcached nats-server mosquitto mosquitto-clients \
	slapd ldap-utils python3-aiosmtpd vsftpd openssh-server openssh-client python3-websockets squid
# Those that are built: grpc-go's interop programs, and small ones on the libraries of others.
PROGRAMS := .cache/programs
export NODEVOY_PROGRAMS := $(CURDIR)/$(PROGRAMS)

.PHONY: program-test program-build

program-test: race-deps deps envoy build program-build $(CLUSTER)/bin/etcd ## servers and clients of other projects, through nodevoy and past it
	@echo 'installing what is missing of: $(PROGRAM_PACKAGES)'
	@test/tools/apt.sh $(PROGRAM_PACKAGES)
	$(GO_TEST) -v ./test/programs

program-build:
	@mkdir -p $(PROGRAMS)
	cd test/programs/parts && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(CURDIR)/$(PROGRAMS)/ ./...
	for part in client server; do (cd test/programs/parts && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' \
	  -o $(CURDIR)/$(PROGRAMS)/interop-$$part google.golang.org/grpc/interop/$$part); done
