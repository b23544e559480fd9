// Command helm lints a chart, renders it with each file of values, and reads every document of it as strictly as the
// API server of Kubernetes: an unknown field, a wrong type or a second value of a field is an error. It uses Helm's own
// packages, so that the whole program, which takes twice as long to build, is not needed.
//
//	helm [-print] CHART VALUES.yaml…
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

// kubeVersion that the chart is rendered for.
const kubeVersion = "v1.31.0"

func main() {
	show := flag.Bool("print", false, "print what is rendered")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: helm [-print] CHART VALUES.yaml…")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Args()[1:], *show); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string, files []string, show bool) error {
	if err := monitoring.AddToScheme(scheme.Scheme); err != nil {
		return err
	}
	c, err := loader.Load(dir)
	if err != nil {
		return err
	}
	version, err := chartutil.ParseKubeVersion(kubeVersion)
	if err != nil {
		return err
	}
	var errs []error
	if _, err := render(c, version, map[string]any{}); err == nil {
		errs = append(errs, errors.New("the chart renders without any values: nobody would be told what is missing"))
	}
	for _, file := range files {
		values, err := chartutil.ReadValuesFile(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		linter := lint.AllWithKubeVersion(dir, values, "default", version)
		for _, m := range linter.Messages {
			if m.Severity >= support.WarningSev {
				errs = append(errs, fmt.Errorf("%s: lint: %w", file, m))
			}
		}
		out, err := render(c, version, values)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
			continue
		}
		n := 0
		for _, name := range slices.Sorted(maps.Keys(out)) {
			if path.Base(name) == "NOTES.txt" || strings.HasPrefix(path.Base(name), "_") {
				continue
			}
			if show {
				fmt.Printf("# %s\n%s\n", name, out[name])
			}
			read, err := documents(out[name])
			n += read
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", file, name, err))
			}
		}
		fmt.Printf("%s with %s: %d documents\n", c.Name(), file, n)
	}
	return errors.Join(errs...)
}

func render(c *chart.Chart, version *chartutil.KubeVersion, values map[string]any) (map[string]string, error) {
	caps := chartutil.DefaultCapabilities.Copy()
	caps.KubeVersion = *version
	options := chartutil.ReleaseOptions{Name: "release", Namespace: "default", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, options, caps)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

var decoder = serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// documents reads every document of a rendered template.
func documents(text string) (n int, err error) {
	reader := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	var errs []error
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return n, errors.Join(errs...)
		}
		if err != nil {
			return n, err
		}
		if empty(doc) {
			continue
		}
		n++
		object, kind, err := decoder.Decode(doc, nil, nil)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		about, err := meta.Accessor(object)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		where := kind.Kind + " " + about.GetName()
		for _, bad := range validation.IsDNS1035Label(about.GetName()) {
			errs = append(errs, fmt.Errorf("%s: name: %s", where, bad))
		}
		for key, value := range about.GetLabels() {
			for _, bad := range append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...) {
				errs = append(errs, fmt.Errorf("%s: label %s: %s", where, key, bad))
			}
		}
		if err := pods(object); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		}
	}
}

func empty(doc []byte) bool {
	for line := range bytes.Lines(doc) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && string(line) != "---" {
			return false
		}
	}
	return true
}

// drain is how long a stop of fanfare may take, and what it is to be given at least.
const drain = 25

// selects reports an error if the labels of the pods are not those that the selector wants.
func selects(selector, labels map[string]string) error {
	for k, v := range selector {
		if labels[k] != v {
			return fmt.Errorf("the selector wants %s=%s, the pods have %q", k, v, labels[k])
		}
	}
	return nil
}

// pods looks at what a pod may do: as the profile `restricted` of Kubernetes wants it, and a little more.
func pods(object runtime.Object) error {
	var spec corev1.PodSpec
	long := false
	switch o := object.(type) {
	case *appsv1.Deployment:
		spec, long = o.Spec.Template.Spec, true
		if err := selects(o.Spec.Selector.MatchLabels, o.Spec.Template.Labels); err != nil {
			return err
		}
	case *appsv1.StatefulSet:
		spec, long = *o.Spec.Template.Spec.DeepCopy(), true
		for _, claim := range o.Spec.VolumeClaimTemplates {
			spec.Volumes = append(spec.Volumes, corev1.Volume{Name: claim.Name})
		}
		if err := selects(o.Spec.Selector.MatchLabels, o.Spec.Template.Labels); err != nil {
			return err
		}
	case *batchv1.Job:
		spec = o.Spec.Template.Spec
	case *corev1.Pod:
		spec = o.Spec
	default:
		return nil
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	s := spec.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		bad("the pod may run as root, or without seccomp")
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		bad("the pod has a token of the API server and needs none")
	}
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range append(slices.Clone(spec.InitContainers), spec.Containers...) {
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
			s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") {
			bad("container %s may gain rights, write its root, or keeps capabilities", c.Name)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			bad("container %s: requests and a limit of memory are wanted", c.Name)
		}
		if long && (c.LivenessProbe == nil || c.ReadinessProbe == nil) {
			bad("container %s has no probes", c.Name)
		}
		seen := map[string]bool{}
		for _, e := range c.Env {
			if seen[e.Name] {
				bad("container %s: %s twice", c.Name, e.Name)
			}
			seen[e.Name] = true
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				bad("container %s mounts %s, which the pod has not", c.Name, m.Name)
			}
		}
		if seen["FANFARE_ROLES"] && (spec.TerminationGracePeriodSeconds == nil || *spec.TerminationGracePeriodSeconds < drain) {
			bad("container %s is given less than %d s to stop", c.Name, drain)
		}
	}
	return errors.Join(errs...)
}
