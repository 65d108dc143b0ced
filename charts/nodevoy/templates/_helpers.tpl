{{/*
SPDX-License-Identifier: Apache-2.0
*/}}

{{- define "nodevoy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "nodevoy.fullname" -}}
{{- $name := include "nodevoy.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "nodevoy.selectorLabels" -}}
app.kubernetes.io/name: {{ include "nodevoy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "nodevoy.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "nodevoy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: nodevoy
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "nodevoy.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "nodevoy.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is required when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image's reference, of a map with repository, tag and digest, and a default tag. */}}
{{- define "nodevoy.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .tag }}
{{- end }}
{{- end }}

{{/* What every container of ours has in common. */}}
{{- define "nodevoy.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
{{- end }}

{{/* A label selector, written as kubectl -l takes it. */}}
{{- define "nodevoy.selector" -}}
{{- $terms := list }}
{{- range $key, $value := .matchLabels }}
{{- $terms = append $terms (printf "%s=%s" $key $value) }}
{{- end }}
{{- range .matchExpressions }}
{{- if has .operator (list "Exists" "DoesNotExist") }}
{{- if .values }}
{{- fail (printf "namespaceSelector: %s %s takes no values" .key .operator) }}
{{- end }}
{{- $terms = append $terms (printf "%s%s" (eq .operator "Exists" | ternary "" "!") .key) }}
{{- else }}
{{- if not .values }}
{{- fail (printf "namespaceSelector: %s %s needs values" .key .operator) }}
{{- end }}
{{- $terms = append $terms (printf "%s %s (%s)" .key (eq .operator "In" | ternary "in" "notin") (join "," .values)) }}
{{- end }}
{{- end }}
{{- join "," $terms }}
{{- end }}

{{/* "true" when the agent serves metrics. */}}
{{- define "nodevoy.metrics" -}}
{{- with .Values.monitoring }}
{{- if or .enabled .podMonitor.enabled .serviceMonitor.enabled }}true{{ end }}
{{- end }}
{{- end }}

{{- define "nodevoy.testNamespace" -}}
{{- if .Values.test.namespace }}
{{- .Values.test.namespace }}
{{- else if has .Release.Namespace .Values.redirect.excludedNamespaces -}}
default
{{- else }}
{{- .Release.Namespace }}
{{- end }}
{{- end }}

{{/* The namespaces whose pods may enroll themselves in host mode. The client of
`helm test` does: whoever may make pods in the release's namespace, which has to
allow privileged ones, needs no redirection to pass a NetworkPolicy. */}}
{{- define "nodevoy.podOptIn" -}}
{{- with .Values.redirect.podOptInNamespaces }}
{{- if has "*" . }}*{{ else }}{{ append . $.Release.Namespace | uniq | join "," }}{{ end }}
{{- else }}
{{- .Release.Namespace }}
{{- end }}
{{- end }}

{{/* "true" when agents may redirect in pods' network namespaces. */}}
{{- define "nodevoy.podNetns" -}}
{{- if ne .Values.redirect.mode "host" }}true{{ end }}
{{- end }}

{{- define "nodevoy.modeDescription" -}}
{{- $status := "each agent's log and nodevoy status show the result and the reasons" }}
{{- with .Values.redirect }}
{{- if eq .mode "pod" -}}
pod mode: in pods' network namespaces; backends see the pods' own addresses
{{- else if eq .mode "host" -}}
host mode, mechanism {{ .mechanism }}: in the node's network namespace; backends see the node's address{{ if eq .mechanism "auto" }}
                ({{ $status }}){{ end }}
{{- else -}}
auto mode: pod mode on nodes that support it, else host mode, mechanism {{ .mechanism }}
                ({{ $status }})
{{- end }}
{{- end }}
{{- end }}

{{/* "true" when agents find pods' network namespaces by the node's processes, too. */}}
{{- define "nodevoy.hostProc" -}}
{{- if and (include "nodevoy.podNetns" .) .Values.redirect.hostProc }}true{{ end }}
{{- end }}

{{/* Mounts of the node's directories of network namespaces, each where the node
has it: the paths that the agent finds are those that Envoy opens. */}}
{{- define "nodevoy.netnsMounts" -}}
{{- if include "nodevoy.podNetns" . }}
{{- range $i, $dir := .Values.redirect.netnsDirs }}
- name: netns-{{ $i }}
  mountPath: {{ $dir }}
  readOnly: true
  mountPropagation: HostToContainer
{{- end }}
{{- end }}
{{- end }}

{{/* The capabilities that the agent and Envoy have, as lists in JSON. Envoy's are
those that it keeps; the launcher has two more to become another user. */}}
{{- define "nodevoy.agentCapabilities" -}}
{{- $all := list "NET_ADMIN" "NET_RAW" }}
{{- if include "nodevoy.podNetns" . }}{{ $all = append $all "SYS_ADMIN" }}{{ end }}
{{- if include "nodevoy.hostProc" . }}{{ $all = append $all "SYS_PTRACE" }}{{ end }}
{{- toJson $all }}
{{- end }}

{{- define "nodevoy.envoyCapabilities" -}}
{{- $all := list }}
{{- if include "nodevoy.podNetns" . }}{{ $all = list "NET_ADMIN" "SYS_ADMIN" }}
{{- else if ne .Values.redirect.mechanism "dnat" }}{{ $all = list "NET_RAW" }}
{{- end }}
{{- if include "nodevoy.hostProc" . }}{{ $all = append $all "SYS_PTRACE" }}{{ end }}
{{- toJson $all }}
{{- end }}

{{/* A quantity of memory in bytes. */}}
{{- define "nodevoy.bytes" -}}
{{- $text := kindIs "string" . | ternary . (printf "%.0f" (float64 .)) }}
{{- $unit := regexFind "[a-zA-Z]*$" $text }}
{{- $factor := get (dict "" 1 "m" 0.001 "k" 1e3 "Ki" 1024 "M" 1e6 "Mi" 1048576 "G" 1e9 "Gi" 1073741824 "T" 1e12 "Ti" 1099511627776) $unit }}
{{- printf "%.0f" (mulf (trimSuffix $unit $text | float64) $factor) }}
{{- end }}

{{/* The memory limit of Envoy's container in bytes, 0 for none. */}}
{{- define "nodevoy.envoyLimit" -}}
{{- $limits := (.Values.envoy.resources | default dict).limits | default dict }}
{{- include "nodevoy.bytes" ($limits.memory | default 0) }}
{{- end }}

{{/* The bound of Envoy's heap in bytes, 0 for none: as asked for, or so much of
the container's limit that there is room for what isn't heap, such as the buffers
of sockets, and for what comes in until Envoy has noticed that it is near the bound. */}}
{{- define "nodevoy.maxHeap" -}}
{{- $asked := .Values.envoy.maxHeap }}
{{- if ne (toString $asked) "" }}
{{- include "nodevoy.bytes" $asked }}
{{- else }}
{{- $limit := include "nodevoy.envoyLimit" . | int64 }}
{{- if $limit }}
{{- max (div $limit 2) (min (div (mul $limit 4) 5) (sub $limit 209715200)) }}
{{- else }}
{{- 0 }}
{{- end }}
{{- end }}
{{- end }}

{{/* How many connections of a pod are redirected at a time, 0 for no limit: as asked
for, or one for each 6 MiB of the heap's bound. */}}
{{- define "nodevoy.maxConnectionsPerPod" -}}
{{- $asked := .Values.envoy.maxConnectionsPerPod }}
{{- $heap := include "nodevoy.maxHeap" . | int64 }}
{{- if ne (toString $asked) "" }}
{{- int64 $asked }}
{{- else if $heap }}
{{- min 1000000 (max 1 (div $heap 6291456)) }}
{{- else }}
{{- 128 }}
{{- end }}
{{- end }}

{{/* How much memory Services in use may take in Envoy, in bytes, 0 for no limit: as
asked for, or a part of the heap's bound. */}}
{{- define "nodevoy.clusterMemory" -}}
{{- $asked := .Values.envoy.clusterMemory }}
{{- $heap := include "nodevoy.maxHeap" . | int64 }}
{{- if ne (toString $asked) "" }}
{{- include "nodevoy.bytes" $asked }}
{{- else if $heap }}
{{- div (mul $heap 3) 10 }}
{{- else -}}
268435456
{{- end }}
{{- end }}

{{/* The number of Envoy's workers. "auto" is the whole CPUs that its container
requests, or is limited to if it requests none, and 1 at least. A node of two cores
or more that runs the pod has more. */}}
{{- define "nodevoy.envoyWorkers" -}}
{{- $asked := toString .Values.envoy.concurrency }}
{{- if eq $asked "auto" }}
{{- $resources := .Values.envoy.resources | default dict }}
{{- $cpu := ($resources.requests | default dict).cpu | default ($resources.limits | default dict).cpu | default 0 | toString }}
{{- $cores := hasSuffix "m" $cpu | ternary (divf (trimSuffix "m" $cpu | float64) 1000) (float64 $cpu) }}
{{- max 1 (floor $cores | int) }}
{{- else }}
{{- $asked }}
{{- end }}
{{- end }}
