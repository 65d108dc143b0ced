{{/*
SPDX-License-Identifier: Apache-2.0
The agent's flags. Every one exists in the binary, with this default: a test
compares them.
*/}}
{{- define "nodevoy.agentArgs" -}}
- --node-name=$(NODE_NAME)
- --run-dir=/run/nodevoy
- --envoy-group=65532
- --host-dir=/run/nodevoy-host
- --cleanup-on-exit
- --drain-timeout={{ .Values.drainSeconds }}s
{{- /* The brackets are for IPv6, and do no harm to IPv4. */}}
- --metrics-address={{ if include "nodevoy.metrics" . }}[$(POD_IP)]:{{ .Values.monitoring.port }}{{ end }}
- --request-metrics={{ .Values.monitoring.requests }}
{{- with .Values.debug }}
{{- if .loopback }}
- --debug-address=127.0.0.1:{{ .port }}
{{- end }}
{{- if .pprof }}
- --debug-pprof
{{- end }}
{{- end }}
- --log-level={{ .Values.logLevel }}
- --log-format={{ .Values.logFormat }}
{{- with .Values.namespaceSelector }}
- {{ printf "--namespace-selector=%s" (include "nodevoy.selector" .) | quote }}
{{- end }}
{{- with .Values.redirect }}
- --redirect-mode={{ .mode }}
{{- if include "nodevoy.podNetns" $ }}
- --netns-dir={{ join "," .netnsDirs }}
{{- if .hostProc }}
- --proc=/proc
{{- end }}
{{- end }}
- --mechanism={{ .mechanism }}
- --iptables={{ .iptables }}
- --redirect-timeout={{ .timeout }}
- --excluded-namespaces={{ join "," .excludedNamespaces }}
{{- if ne .mode "pod" }}
- --pod-opt-in-namespaces={{ include "nodevoy.podOptIn" $ }}
{{- with .excludedEndpoints }}
- --excluded-endpoints={{ join "," . }}
{{- end }}
{{- end }}
- --opaque-ports={{ join "," .opaquePorts }}
- --undeclared={{ .undeclared }}
- --listener-address4={{ .listener.address4 }}
- --listener-address6={{ .listener.address6 }}
- --listener-port-tcp={{ .listener.ports.tcp }}
- --listener-port-http={{ .listener.ports.http }}
- --listener-port-detect={{ .listener.ports.detect }}
- --mark={{ .mark }}
- --route-table={{ .routeTable }}
{{- end }}
{{- with .Values.flows }}
- --flows={{ .share }}
- --flows-kept={{ int64 .kept }}
{{- if .query }}
- --flows-query
{{- end }}
- --kernel-flows={{ .kernel | default "off" }}
{{- end }}
{{- with .Values.envoy }}
- --access-log={{ .accessLog }}
{{- with .accessLogFormat }}
- {{ printf "--access-log-format=%s" . | toJson }}
{{- end }}
- {{ printf "--access-log-filter=%s" .accessLogFilter | toJson }}
{{- with .accessLogFile }}
- --access-log-file={{ . }}
{{- end }}
- --discovery-timeout={{ .discoveryTimeout }}
- --detect-timeout={{ .detectTimeout }}
- --connect-timeout={{ .connectTimeout }}
- --max-connections-per-pod={{ include "nodevoy.maxConnectionsPerPod" $ }}
{{- with int64 .maxConnectionRatePerPod }}
- --max-connection-rate-per-pod={{ . }}
{{- end }}
{{- with int64 .maxRequestRatePerPod }}
- --max-request-rate-per-pod={{ . }}
{{- end }}
- --max-headers-kib={{ int64 .maxHeadersKiB }}
- --max-streams={{ int64 .maxStreams }}
- --cluster-memory={{ include "nodevoy.clusterMemory" $ }}
{{- end }}
{{- with .Values.telemetry }}
{{- with .otlpEndpoint }}
- {{ printf "--otlp-endpoint=%s" . | toJson }}
{{- end }}
- --tracing={{ .tracing }}
{{- if .accessLog }}
- --access-log-otlp
{{- end }}
{{- if .annotations }}
- --telemetry-annotations
{{- end }}
{{- end }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}
