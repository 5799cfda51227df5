{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* Names and labels. */}}

{{/*
In a chart that embeds keyferry never the release's name alone, which is what the app's own things are called. The chart's
name is its alias there, so that two of them stay two. Nothing is cut: a release's name has at most 53 characters.
*/}}
{{- define "keyferry.fullname" -}}
{{- $name := .Chart.Name | lower | replace "_" "-" -}}
{{- $alone := and .Chart.IsRoot (contains "keyferry" .Release.Name) -}}
{{- .Values.fullnameOverride | default (ternary .Release.Name (printf "%s-%s" .Release.Name $name) $alone) -}}
{{- end -}}

{{- define "keyferry.labels" -}}
app.kubernetes.io/name: keyferry
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The pods that carry the agent. */}}
{{- define "keyferry.podSelector" -}}
{{- .Values.podSelector | default (dict "matchLabels" (dict "app.kubernetes.io/instance" .Release.Name)) | toYaml -}}
{{- end -}}

{{- define "keyferry.configMapName" -}}
{{- .Values.existingConfigMap | default (include "keyferry.fullname" .) -}}
{{- end -}}

{{- define "keyferry.image" -}}
{{- with .Values.image -}}
{{- if and (eq .tag "latest") (not .digest) -}}
{{- fail "keyferry: image.tag is latest, another image tomorrow; name a version, or none for the chart's" -}}
{{- end -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/* A map as JSON, with numbers as texts: a quantity may be written as either. */}}
{{- define "keyferry.texts" -}}
{{- $found := dict -}}
{{- range $key, $value := . -}}{{- $_ := set $found $key (toString $value) -}}{{- end -}}
{{- toJson $found -}}
{{- end -}}
