{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/*
What a chart embeds. In a chart that has keyferry as a dependency the argument is .Subcharts.keyferry:

    serviceAccountName: {{ include "keyferry.serviceAccountName" .Subcharts.keyferry }}
    securityContext:    {{- include "keyferry.podSecurityContext" .Subcharts.keyferry | nindent 8 }}
    initContainers:     {{- include "keyferry.initContainers" .Subcharts.keyferry | nindent 8 }}
    containers:
      - volumeMounts:   {{- include "keyferry.appMount" .Subcharts.keyferry | nindent 12 }}
    volumes:            {{- include "keyferry.volumes" .Subcharts.keyferry | nindent 8 }}

Below Kubernetes 1.29 "keyferry.containers" belongs into containers too; from there on it is empty.
*/}}

{{/* "native", "classic" (an init container, and a sidecar among the containers) or "once". */}}
{{- define "keyferry.shape" -}}
{{- $able := semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version -}}
{{- $wanted := .Values.nativeSidecar | toString -}}
{{- if and (eq $wanted "true") (not $able) -}}
{{- fail (printf "keyferry: nativeSidecar is true, but Kubernetes %s has no native sidecars (1.29 and newer do); set it to auto" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if eq .Values.mode "once" -}}once
{{- else if or (eq $wanted "true") (and (eq $wanted "auto") $able) -}}native
{{- else -}}classic
{{- end -}}
{{- end -}}

{{/* All that the agent's containers have in common. */}}
{{- define "keyferry.agent" -}}
image: {{ include "keyferry.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- /* 0 leaves it to the cluster, as null does: Helm 4 ignores a null of the chart that embeds this one. */}}
  {{- with .Values.runAsUser }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  runAsNonRoot: true
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - name: keyferry
    mountPath: {{ .Values.mountPath }}
  - name: keyferry-config
    mountPath: /etc/keyferry
    readOnly: true
{{- end -}}

{{/* The agent that stays. HTTP probes, since starting a process costs more CPU than the agent uses in an hour. */}}
{{- define "keyferry.sidecar" -}}
name: keyferry
args: [run]
{{ include "keyferry.agent" . }}
ports:
  - name: keyferry
    containerPort: {{ .Values.port }}
livenessProbe:
  httpGet: {path: /livez, port: {{ .Values.port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ .Values.port }}}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{- define "keyferry.initContainers" -}}
{{- $shape := include "keyferry.shape" . -}}
{{- if eq $shape "native" -}}
- restartPolicy: Always
  {{- include "keyferry.sidecar" . | nindent 2 }}
  # The app starts with the first publication. A startup probe that fails kills its container, which helps nobody
  # here: startup.timeout in agent.yaml decides when to give up, not the month that this is.
  startupProbe:
    httpGet: {path: /readyz, port: {{ .Values.port }}}
    periodSeconds: 1
    timeoutSeconds: 5
    failureThreshold: 2592000
{{- else -}}
- name: keyferry-once
  args: [once]
  {{- include "keyferry.agent" . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "keyferry.containers" -}}
{{- if eq (include "keyferry.shape" .) "classic" -}}
- {{ include "keyferry.sidecar" . | indent 2 | trim }}
{{- end -}}
{{- end -}}

{{- define "keyferry.volumes" -}}
{{- if not (or .Values.config .Values.existingConfigMap) -}}
{{- fail (printf "keyferry: set config.keys or existingConfigMap, or the pod would wait for a ConfigMap that nobody makes; a chart that embeds this one sets them below %s:" .Chart.Name) -}}
{{- end -}}
- name: keyferry
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.volumeSize }}
- name: keyferry-config
  projected:
    # 0440 in decimal: YAML 1.1 and 1.2 do not agree on octal numbers. The group is the pod's fsGroup.
    defaultMode: 288
    sources:
      - configMap:
          name: {{ include "keyferry.configMapName" . }}
          items:
            - {key: agent.yaml, path: agent.yaml}
      {{- with .Values.files }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end -}}

{{/* Read-only, or the app could replace its key; and never with a subPath, which would never see a rotation. */}}
{{- define "keyferry.appMount" -}}
- name: keyferry
  mountPath: {{ .Values.mountPath }}
  readOnly: true
{{- end -}}

{{/* By this variable get_kms_adapter() knows that there is an agent. */}}
{{- define "keyferry.appEnv" -}}
- name: KEYFERRY_DIR
  value: {{ .Values.mountPath }}
{{- end -}}

{{/*
The pod's part of the restricted profile. The kubelet gives all the pod's volumes to the fsGroup: by OnRootMismatch the
app's own large ones at their first mount only, and not at each start.
*/}}
{{- define "keyferry.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.fsGroup }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "keyferry.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "keyferry.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "keyferry.serviceAccountAnnotations" -}}
{{- $found := deepCopy .Values.serviceAccount.annotations -}}
{{- with .Values.serviceAccount.awsRoleArn -}}
{{- $_ := set $found "eks.amazonaws.com/role-arn" . -}}
{{- end -}}
{{- with .Values.serviceAccount.gcpServiceAccount -}}
{{- $_ := set $found "iam.gke.io/gcp-service-account" . -}}
{{- end -}}
{{- with $found -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}
