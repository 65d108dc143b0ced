{{/*
SPDX-License-Identifier: Apache-2.0
What a schema can't check, or not with an error that people understand.
*/}}
{{- define "nodevoy.validate" -}}
{{- $r := .Values.redirect }}
{{- include "nodevoy.validateDuration" (list "redirect.timeout" $r.timeout "^[0-9]+[smh]$" "whole seconds, minutes or hours, such as 30s") }}
{{- range $name := list "discoveryTimeout" "detectTimeout" "connectTimeout" }}
{{- include "nodevoy.validateDuration" (list (print "envoy." $name) (get $.Values.envoy $name) "^([0-9]+(ms|s|m))+$" "a time such as 500ms or 2s") }}
{{- end }}
{{- range $name := list "podMonitor" "serviceMonitor" }}
{{- include "nodevoy.validateDuration" (list (printf "monitoring.%s.interval" $name) (get $.Values.monitoring $name).interval "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$" "empty or a time such as 30s") }}
{{- end }}
{{- range $r.netnsDirs }}
{{- if or (not (regexMatch "^(/[A-Za-z0-9._-]+){2,}$" .)) (regexMatch "/\\.\\.?(/|$)" .) (eq . "/var/run") }}
{{- fail (printf "redirect.netnsDirs: %q is not the absolute path of a directory of network namespaces, such as /run/netns" .) }}
{{- end }}
{{- if regexMatch "^(/proc|/run/nodevoy|/run/nodevoy-host|/var/run/secrets)(/|$)" . }}
{{- fail (printf "redirect.netnsDirs: %s has another purpose" .) }}
{{- end }}
{{- end }}
{{- if and (ne $r.mode "host") (not $r.netnsDirs) (not $r.hostProc) }}
{{- fail (printf "redirect.netnsDirs is empty and redirect.hostProc is false: mode %s can't find pods' network namespaces" $r.mode) }}
{{- end }}
{{- $limit := include "nodevoy.envoyLimit" . | int64 }}
{{- $heap := include "nodevoy.maxHeap" . | int64 }}
{{- if and $limit (ge $heap $limit) }}
{{- fail (printf "envoy.maxHeap: %v is not below the container's limit, envoy.resources.limits.memory: %v" .Values.envoy.maxHeap .Values.envoy.resources.limits.memory) }}
{{- end }}
{{- if and $heap (lt $heap 67108864) }}
{{- if .Values.envoy.maxHeap }}
{{- fail (printf "envoy.maxHeap: %v is too small for Envoy to accept connections: set 64Mi or more, or \"0\" for no bound" .Values.envoy.maxHeap) }}
{{- end }}
{{- fail (printf "envoy.resources.limits.memory: half of %v is too small for Envoy to accept connections: set 128Mi or more, or set envoy.maxHeap" .Values.envoy.resources.limits.memory) }}
{{- end }}
{{- $clusters := include "nodevoy.clusterMemory" . | int64 }}
{{- if and $heap (ge $clusters $heap) }}
{{- fail (printf "envoy.clusterMemory: %v is not below the bound of Envoy's heap, %d bytes" .Values.envoy.clusterMemory $heap) }}
{{- end }}
{{- if and $clusters (lt $clusters 8388608) }}
{{- fail (printf "envoy.clusterMemory: %v is too small: set 8Mi or more, or \"0\" for no limit" .Values.envoy.clusterMemory) }}
{{- end }}
{{- if not (regexMatch "^0x0*[1-9a-fA-F][0-9a-fA-F]{0,7}$" $r.mark) }}
{{- fail (printf "redirect.mark: %q is not a hexadecimal number from \"0x1\" to \"0xffffffff\"" $r.mark) }}
{{- end }}
{{- if has (int $r.routeTable) (list 253 254 255) }}
{{- fail (printf "redirect.routeTable: %d is reserved by the kernel: choose 1 to 252 or 256 to 32765" (int $r.routeTable)) }}
{{- end }}
{{- if not (regexMatch "^169\\.254\\.[0-9]{1,3}\\.[0-9]{1,3}$" $r.listener.address4) }}
{{- fail (printf "redirect.listener.address4: %q is not in 169.254.0.0/16, the link-local addresses" $r.listener.address4) }}
{{- end }}
{{- if not (regexMatch "^[fF][cCdD][0-9a-fA-F]{2}:[0-9a-fA-F:]+$" $r.listener.address6) }}
{{- fail (printf "redirect.listener.address6: %q is not in fc00::/7, the unique local addresses" $r.listener.address6) }}
{{- end }}
{{- $ports := $r.listener.ports }}
{{- if ne 3 (list (int $ports.tcp) (int $ports.http) (int $ports.detect) | uniq | len) }}
{{- fail (printf "redirect.listener.ports: tcp %v, http %v and detect %v have to differ" $ports.tcp $ports.http $ports.detect) }}
{{- end }}
{{- $rolling := .Values.updateStrategy.rollingUpdate | default dict }}
{{- $surge := $rolling.maxSurge | default 0 | toString | trimSuffix "%" }}
{{- $unavailable := $rolling.maxUnavailable | default 0 | toString | trimSuffix "%" }}
{{- if and (eq .Values.updateStrategy.type "RollingUpdate") (eq (eq $surge "0") (eq $unavailable "0")) }}
{{- fail "updateStrategy.rollingUpdate: exactly one of maxSurge and maxUnavailable has to be 0" }}
{{- end }}
{{- if and .Values.test.namespace (has .Values.test.namespace $r.excludedNamespaces) }}
{{- fail (printf "test.namespace: %s is one of redirect.excludedNamespaces, where nothing is redirected" .Values.test.namespace) }}
{{- end }}
{{- end }}

{{/* Of a list: the value's path, the value, what it has to match, and that in words. */}}
{{- define "nodevoy.validateDuration" -}}
{{- if not (regexMatch (index . 2) (index . 1)) }}
{{- fail (printf "%s: %q is not %s" (index . 0) (index . 1) (index . 3)) }}
{{- end }}
{{- end }}
