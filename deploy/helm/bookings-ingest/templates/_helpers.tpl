{{- define "ingest.name" -}}
{{- if contains "bookings-ingest" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-bookings-ingest" (.Release.Name | trunc 34 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "ingest.secretName" -}}
{{ .Values.secret.existing | default (include "ingest.name" .) }}
{{- end }}

{{- define "ingest.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "ingest.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "ingest.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* The labels by which a role's pods are chosen: call it with (dict "root" $ "role" "receive"). */}}
{{- define "ingest.selector" -}}
app.kubernetes.io/name: bookings-ingest
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "ingest.labels" -}}
{{ include "ingest.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "ingest.podMetadata" -}}
labels:
  {{- include "ingest.labels" . | nindent 2 }}
annotations:
  # Settings other than accounts and secrets are read at the start only.
  checksum/config: {{ include (print .root.Template.BasePath "/configmap.yaml") .root | sha256sum }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* What the pods of all roles have in common, without their containers and volumes. */}}
{{- define "ingest.podSpec" -}}
serviceAccountName: {{ include "ingest.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
  {{- range $name, $value := .root.Values.podSecurityContext }}
  {{- if not (kindIs "invalid" $value) }}
  {{ $name }}: {{ $value }}
  {{- end }}
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "ingest.selector" . | nindent 8 }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* What the containers of all roles have in common: `folder` is the setting for the claim named data. */}}
{{- define "ingest.container" -}}
image: {{ include "ingest.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
env:
  - {name: INGEST_CONFIG, value: /etc/ingest/ingest.toml}
  - {name: INGEST_SECRETS_DIR, value: /etc/ingest-secrets}
  - {name: INGEST_PUBLIC_URL, value: {{ .root.Values.publicUrl | quote }}}
  - {name: INGEST_LOG, value: {{ .root.Values.log | quote }}}
  - {name: INGEST_WAREHOUSE__DESTINATION, value: {{ .root.Values.warehouse.destination | quote }}}
  - {name: INGEST_WAREHOUSE__DATASET, value: {{ .root.Values.warehouse.dataset | quote }}}
  - {name: INGEST_RECEIVER__SPOOL_DIR, value: /var/lib/ingest/data/spool}
  - {name: INGEST_WAREHOUSE__WORK_DIR, value: /var/lib/ingest/data/dlt}
  - {name: INGEST_RECONCILE__STATE_DIR, value: /var/lib/ingest/data/reconcile}
{{- end }}

{{- define "ingest.mounts" -}}
- {name: data, mountPath: /var/lib/ingest/data}
- {name: tmp, mountPath: /tmp}
- {name: settings, mountPath: /etc/ingest, readOnly: true}
- {name: secrets, mountPath: /etc/ingest-secrets, readOnly: true}
{{- end }}

{{- define "ingest.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
- name: settings
  configMap: {name: {{ include "ingest.name" .root }}}
- name: secrets
  secret:
    secretName: {{ include "ingest.secretName" .root }}
    defaultMode: 0440
{{- end }}

{{- /* A claim of `size` bytes: call it with the values of spool, work or state. */}}
{{- define "ingest.claimSpec" -}}
accessModes: [ReadWriteOnce]
{{- if not (kindIs "invalid" .storageClassName) }}
storageClassName: {{ .storageClassName | quote }}
{{- end }}
resources:
  requests: {storage: {{ .size }}}
{{- end }}
