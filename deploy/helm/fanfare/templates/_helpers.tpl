{{- define "fanfare.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "fanfare.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "fanfare.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "fanfare.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.selector" -}}
app.kubernetes.io/name: {{ include "fanfare.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "fanfare.labels" -}}
{{ include "fanfare.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "fanfare.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "fanfare.secret" -}}
{{- default (include "fanfare.fullname" .) .Values.secret.existing -}}
{{- end -}}

{{- define "fanfare.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "fanfare.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The variables of every process. Call with (dict "root" $ "secrets" (list …)). */ -}}
{{- define "fanfare.env" -}}
- {name: FANFARE_DATA, value: /data/fanfare}
- {name: TMPDIR, value: /data} # nothing else can be written to
- {name: FANFARE_HTTP, value: "0.0.0.0:8080"}
- {name: FANFARE_LOG_FORMAT, value: json}
- {name: FANFARE_LOG_LEVEL, value: {{ .root.Values.config.logLevel | quote }}}
- {name: FANFARE_KAFKA, value: {{ join "," .root.Values.config.kafka | quote }}}
{{- if .root.Values.config.kafkaTLS }}
- {name: FANFARE_KAFKA_TLS, value: "true"}
{{- end }}
{{- with .root.Values.config.kafkaCA }}
- {name: FANFARE_KAFKA_CA, value: {{ . | quote }}}
{{- end }}
{{- with .root.Values.config.kafkaUser }}
- {name: FANFARE_KAFKA_USER, value: {{ . | quote }}}
- {name: FANFARE_KAFKA_SASL, value: {{ $.root.Values.config.kafkaSASL | quote }}}
- name: FANFARE_KAFKA_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "fanfare.secret" $.root }}, key: FANFARE_KAFKA_PASSWORD}}
{{- end }}
- {name: FANFARE_REPLICATION, value: {{ .root.Values.config.replication | quote }}}
- {name: FANFARE_PREFIX, value: {{ .root.Values.config.prefix | quote }}}
- {name: FANFARE_RECEIPT_WINDOW, value: {{ .root.Values.config.receiptWindow | quote }}}
{{- with .root.Values.config.linkURL }}
- {name: FANFARE_LINK_URL, value: {{ . | quote }}}
{{- end }}
- {name: FANFARE_SIM_RATE, value: {{ .root.Values.config.simRate | int | quote }}}
{{- if .root.Values.carrierSim.enabled }}
- {name: FANFARE_CARRIER_SIM, value: "http://{{ include "fanfare.fullname" .root }}-carriersim:9999"}
{{- end }}
{{- range concat (list "FANFARE_ID_KEY") .secrets }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ include "fanfare.secret" $.root }}, key: {{ . }}}}
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fanfare.placement" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "fanfare.mounts" -}}
- {name: data, mountPath: /data}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "fanfare.volumes" -}}
- {name: data, emptyDir: {sizeLimit: 1Gi}}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
