{{- /* What everything is called, and what is the same in all pods. */ -}}

{{- define "esker.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "esker.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "esker.labels" -}}
{{ include "esker.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "esker.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- /* Addresses of the first `count` WAL nodes. */ -}}
{{- define "esker.nodes" -}}
{{- $name := include "esker.name" .root }}
{{- $nodes := list }}
{{- range $n := untilStep 1 (int (add1 .count)) 1 }}
{{- $nodes = append $nodes (printf "%s-wal-%d.%s-wal.%s.svc:7072" $name $n $name $.root.Release.Namespace) }}
{{- end }}
{{- $nodes | join "," }}
{{- end }}

{{- define "esker.pod" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
automountServiceAccountToken: false
# Services are no configuration.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "esker.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{- define "esker.probes" -}}
# Gently: a node whose disk hangs hands over by itself.
livenessProbe:
  httpGet: { path: /healthz, port: metrics }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: metrics }
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{- define "esker.bucket" -}}
{{- with .Values.bucket.secret }}
envFrom:
  - secretRef: { name: {{ . }} }
{{- end }}
{{- end }}

{{- /* Files of an agent's pod, with the certificates of `who`: of the Job's, an operator's, too. */ -}}
{{- define "esker.agentVolumes" -}}
- name: config
  configMap: { name: {{ include "esker.name" .root }}-agent }
{{- with .root.Values.tls.peers.secret }}
- name: tls-peers
  secret:
    secretName: {{ . }}
    items:
      - { key: ca.pem, path: ca.pem }
      {{- range $.who }}
      - { key: {{ . }}.pem, path: {{ . }}.pem }
      - { key: {{ . }}.key, path: {{ . }}.key }
      {{- end }}
{{- end }}
{{- with .root.Values.tls.public.secret }}
- name: tls-public
  secret: { secretName: {{ . }} }
{{- end }}
{{- end }}

{{- define "esker.agentMounts" -}}
- { name: config, mountPath: /etc/esker, readOnly: true }
{{- if .Values.tls.peers.secret }}
- { name: tls-peers, mountPath: /etc/esker-tls/peers, readOnly: true }
{{- end }}
{{- if .Values.tls.public.secret }}
- { name: tls-public, mountPath: /etc/esker-tls/public, readOnly: true }
{{- end }}
{{- end }}
