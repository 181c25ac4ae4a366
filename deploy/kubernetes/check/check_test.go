// Package check holds the manifests against what they will meet: the API
// server's own validation, the pod security standards, and Closeout's settings.
package check

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	"k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/closeouthq/closeout/internal/config"
)

// build gives the objects of a kustomization, as kubectl apply -k would send them.
// An unknown field, or one given twice, is an error.
func build(t *testing.T, dir string) []runtime.Object {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func decode(text []byte) (objects []runtime.Object, err error) {
	strict := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict)
	for documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text))); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		object, _, err := strict.UniversalDeserializer().Decode(document, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, document)
		}
		legacyscheme.Scheme.Default(object)
		objects = append(objects, object)
	}
}

var kustomizations = []string{"../closeout", "../setup", "../example"}

func TestTheAPIServerAcceptsTheManifests(t *testing.T) {
	for _, dir := range kustomizations {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			for _, object := range build(t, dir) {
				for _, fault := range validate(t, object) {
					t.Errorf("%s: %v", name(object), fault)
				}
			}
		})
	}
}

// TestTheValidationIsNoFormality breaks the manifests, each in a way of its own.
func TestTheValidationIsNoFormality(t *testing.T) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "../example")
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, new, fault string }{
		{"serviceName:", "serviceNam:", "unknown field"},
		{"maxUnavailable: 1", "maxUnavailable: one", "PodDisruptionBudget"},
		{"mountPath: /data", "mountPath: ''", "mountPath"},
		{"name: secrets\n        secret", "name: secret\n        secret", "volumeMounts"},
		{"runAsUser: 65532", "runAsUser: -1", "runAsUser"},
	} {
		t.Run(test.old, func(t *testing.T) {
			broken := strings.Replace(string(text), test.old, test.new, 1)
			if broken == string(text) {
				t.Fatal("there is nothing to break")
			}
			objects, err := decode([]byte(broken))
			found := fmt.Sprint(err)
			for _, object := range objects {
				found += name(object) + fmt.Sprint(validate(t, object))
			}
			if !strings.Contains(found, test.fault) {
				t.Errorf("found %s, want a fault with %q", found, test.fault)
			}
		})
	}
}

// validate is what the API server does to a new object.
func validate(t *testing.T, object runtime.Object) field.ErrorList {
	t.Helper()
	namespaced(object)
	internal, err := legacyscheme.Scheme.ConvertToVersion(object, schema.GroupVersion{Group: object.GetObjectKind().GroupVersionKind().Group, Version: runtime.APIVersionInternal})
	if err != nil {
		t.Fatal(err)
	}
	switch o := internal.(type) {
	case *apps.StatefulSet:
		return appsvalidation.ValidateStatefulSet(o, corevalidation.PodValidationOptions{})
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(o, corevalidation.PodValidationOptions{})
	case *batch.Job:
		// What the API server itself would fill in.
		o.Spec.Selector, o.Spec.ManualSelector = &metav1.LabelSelector{MatchLabels: o.Spec.Template.Labels}, new(bool)
		*o.Spec.ManualSelector = true
		return batchvalidation.ValidateJob(o, batchvalidation.JobValidationOptions{})
	case *core.Service:
		if o.Spec.ClusterIP != "" {
			o.Spec.ClusterIPs = []string{o.Spec.ClusterIP} // so does the API server
		}
		return corevalidation.ValidateServiceCreate(o)
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(o)
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(o)
	case *core.Namespace:
		return corevalidation.ValidateNamespace(o)
	case *policy.PodDisruptionBudget:
		return policyvalidation.ValidatePodDisruptionBudget(o, policyvalidation.PodDisruptionBudgetValidationOptions{})
	case *networking.NetworkPolicy:
		return networkingvalidation.ValidateNetworkPolicy(o, networkingvalidation.NetworkPolicyValidationOptions{})
	case *networking.Ingress:
		return networkingvalidation.ValidateIngressCreate(o)
	default:
		t.Fatalf("nobody validates a %T", o)
		return nil
	}
}

func TestEveryPodIsWithinTheRestrictedStandard(t *testing.T) {
	evaluator, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range kustomizations {
		for _, object := range build(t, dir) {
			pod := template(object)
			if pod == nil {
				continue
			}
			results := evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec)
			if result := podsecurity.AggregateCheckResults(results); !result.Allowed {
				t.Errorf("%s: %s: %s", name(object), result.ForbiddenReason(), result.ForbiddenDetail())
			}
			for _, c := range pod.Spec.Containers {
				if read := c.SecurityContext.ReadOnlyRootFilesystem; read == nil || !*read {
					t.Errorf("%s: its file system can be written to", name(object))
				}
				if c.Resources.Limits.Memory().IsZero() {
					t.Errorf("%s: its memory has no limit", name(object))
				}
			}
		}
	}
}

func TestWhatSelectsPodsFindsThem(t *testing.T) {
	objects := build(t, "../example")
	found := func(of runtime.Object, selector labels.Selector, ports ...string) {
		t.Helper()
		for _, object := range objects {
			if pod := template(object); pod != nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
				for _, port := range ports {
					if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port }) {
						t.Errorf("%s: %s has no port %q", name(of), name(object), port)
					}
				}
				return
			}
		}
		t.Errorf("%s selects no pod", name(of))
	}
	kinds := map[string]int{}
	for _, object := range objects {
		kinds[fmt.Sprintf("%T", object)]++
		switch o := object.(type) {
		case *corev1.Service:
			for _, port := range o.Spec.Ports {
				found(o, labels.SelectorFromSet(o.Spec.Selector), port.TargetPort.String())
			}
		case *policyv1.PodDisruptionBudget:
			found(o, selector(t, o.Spec.Selector))
		case *networkingv1.NetworkPolicy:
			for _, rule := range o.Spec.Ingress {
				for _, port := range rule.Ports {
					found(o, selector(t, &o.Spec.PodSelector), port.Port.String())
				}
			}
		}
	}
	want := map[string]int{"*v1.Service": 2, "*v1.PodDisruptionBudget": 2, "*v1.NetworkPolicy": 2, "*v1.StatefulSet": 1, "*v1.Deployment": 1}
	for kind, n := range want {
		if kinds[kind] != n {
			t.Errorf("there are %d of %s, want %d", kinds[kind], kind, n)
		}
	}
}

// TestTheSettingsAreCloseouts loads the settings that a pod would have, and holds
// them against the rest of the pod.
func TestTheSettingsAreCloseouts(t *testing.T) {
	known := map[string]bool{}
	for _, s := range config.Settings() {
		known[s.Env] = true
		known[s.Env+"_FILE"] = s.Secret
	}
	secrets := map[string]string{"apps": "1=secret\n", "database-url": "postgres://closeout:secret@db:5432/closeout"}
	for _, dir := range kustomizations {
		objects := build(t, dir)
		settings := map[string]map[string]string{}
		for _, object := range objects {
			if c, ok := object.(*corev1.ConfigMap); ok {
				settings[c.Name] = c.Data
			}
		}
		for _, object := range objects {
			pod := template(object)
			if pod == nil {
				continue
			}
			t.Run(filepath.Base(dir)+" "+name(object), func(t *testing.T) {
				container := pod.Spec.Containers[0]
				data := settings[container.EnvFrom[0].ConfigMapRef.Name]
				if len(data) == 0 {
					t.Fatal("it has no settings")
				}
				for env, value := range data {
					if !known[env] && !strings.HasPrefix(env, "TEMPORAL_") {
						t.Errorf("%s is no setting", env)
					}
					if file, ok := strings.CutPrefix(value, "/run/secrets/closeout/"); ok {
						if secrets[file] == "" {
							t.Errorf("%s: the secret %q is nowhere described", env, file)
						}
						value = filepath.Join(t.TempDir(), "secret")
						if err := os.WriteFile(value, []byte(secrets[file]), 0o600); err != nil {
							t.Fatal(err)
						}
					}
					t.Setenv(env, value)
				}
				command := container.Args[0]
				c, err := config.Load(func(string) (string, bool) { return "", false }, command == "webhook")
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == c.Data && !m.ReadOnly }) {
					t.Errorf("nothing to write on is mounted at %s, CLOSEOUT_DATA", c.Data)
				}
				if command == "setup" {
					return
				}
				ports := map[string]string{"admin": c.AdminListen, "callbacks": c.Listen}
				for _, port := range container.Ports {
					if ports[port.Name] != fmt.Sprintf(":%d", port.ContainerPort) {
						t.Errorf("port %s is %d, but the setting %s", port.Name, port.ContainerPort, ports[port.Name])
					}
				}
				for _, probe := range []*corev1.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
					if probe.HTTPGet.Port.String() != "admin" || !slices.Contains([]string{"/livez", "/readyz"}, probe.HTTPGet.Path) {
						t.Errorf("a probe asks for %s at %s", probe.HTTPGet.Path, probe.HTTPGet.Port.String())
					}
				}
				needs := c.StopTimeout
				if command == "webhook" {
					needs += c.DrainTimeout + time.Duration(container.Lifecycle.PreStop.Sleep.Seconds)*time.Second
				}
				if grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second; grace < needs+10*time.Second {
					t.Errorf("it has %v to stop and may need %v", grace, needs)
				}
			})
		}
	}
}

// template gives the pods that an object makes, if it makes any.
func template(object runtime.Object) *corev1.PodTemplateSpec {
	switch o := object.(type) {
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *batchv1.Job:
		return &o.Spec.Template
	}
	return nil
}

func selector(t *testing.T, s *metav1.LabelSelector) labels.Selector {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return selector
}

// namespaced puts an object into a namespace, as kubectl does.
func namespaced(object runtime.Object) {
	if o, ok := object.(metav1.Object); ok && o.GetNamespace() == "" {
		if _, itself := object.(*corev1.Namespace); !itself {
			o.SetNamespace("default")
		}
	}
}

func name(object runtime.Object) string {
	return object.GetObjectKind().GroupVersionKind().Kind + " " + object.(metav1.Object).GetName()
}
