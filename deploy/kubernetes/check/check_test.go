// Package check tests the manifests against the API server's validation, the pod security
// standards, and Closeout's settings.
package check

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
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
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	autoscalingvalidation "k8s.io/kubernetes/pkg/apis/autoscaling/validation"
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

// build returns the objects of a kustomization, as kubectl apply -k sends them. An unknown or
// repeated field is an error.
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
		if bytes.Contains(document, []byte("\nkind: PodMonitor\n")) {
			monitor := &podMonitor{}
			if err := yaml.UnmarshalStrict(document, monitor); err != nil {
				return nil, fmt.Errorf("%w in\n%s", err, document)
			}
			objects = append(objects, monitor)
			continue
		}
		object, _, err := strict.UniversalDeserializer().Decode(document, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, document)
		}
		legacyscheme.Scheme.Default(object)
		objects = append(objects, object)
	}
}

// podMonitor has the fields that we use of the Prometheus Operator's kind.
type podMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector            metav1.LabelSelector `json:"selector"`
		PodMetricsEndpoints []struct {
			Port        string `json:"port"`
			Path        string `json:"path"`
			Interval    string `json:"interval"`
			Relabelings []struct {
				SourceLabels []string `json:"sourceLabels"`
				TargetLabel  string   `json:"targetLabel"`
				Replacement  string   `json:"replacement"`
			} `json:"relabelings"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

// DeepCopyObject implements [runtime.Object].
func (m *podMonitor) DeepCopyObject() runtime.Object { c := *m; return &c }

var kustomizations = []string{"../closeout", "../setup", "../example", "../example/setup", "../versioned"}

// withComponent copies the manifests, adds a component to the example's installation, and returns the folder of the copy.
func withComponent(t *testing.T, component string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"settings", "network", "webhook", "worker", "closeout", "setup", "components", "example"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS("../"+name)); err != nil {
			t.Fatal(err)
		}
	}
	if component != "" {
		path := filepath.Join(dir, "example/installation/kustomization.yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, "components: [../../components/"+component+"]\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// installations returns everything that an operator may apply.
func installations(t *testing.T) map[string][]runtime.Object {
	t.Helper()
	all := map[string][]runtime.Object{}
	for _, dir := range kustomizations {
		all[strings.TrimPrefix(dir, "../")] = build(t, dir)
	}
	components, err := os.ReadDir("../components")
	if err != nil {
		t.Fatal(err)
	}
	for _, component := range components {
		dir := withComponent(t, component.Name())
		all["example with "+component.Name()] = build(t, dir+"/example")
		all["example/setup with "+component.Name()] = build(t, dir+"/example/setup")
	}
	return all
}

func TestTheAPIServerAcceptsTheManifests(t *testing.T) {
	for name, objects := range installations(t) {
		t.Run(name, func(t *testing.T) {
			for _, object := range objects {
				for _, fault := range validate(t, object) {
					t.Errorf("%s: %v", title(object), fault)
				}
			}
		})
	}
}

// TestTheValidationIsNoFormality breaks the manifests in different ways. The validation finds each
// fault.
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
		{"averageUtilization: 70", "averageUtilization: -1", "averageUtilization"},
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
				found += title(object) + fmt.Sprint(validate(t, object))
			}
			if !strings.Contains(found, test.fault) {
				t.Errorf("found %s, want a fault with %q", found, test.fault)
			}
		})
	}
}

// validate validates a new object as the API server does.
func validate(t *testing.T, object runtime.Object) field.ErrorList {
	t.Helper()
	namespaced(object)
	if _, ok := object.(*podMonitor); ok {
		return nil // a kind of the Prometheus Operator, and strictly decoded
	}
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
		// The API server fills in the selector.
		o.Spec.Selector, o.Spec.ManualSelector = &metav1.LabelSelector{MatchLabels: o.Spec.Template.Labels}, new(bool)
		*o.Spec.ManualSelector = true
		return batchvalidation.ValidateJob(o, batchvalidation.JobValidationOptions{})
	case *core.Service:
		if o.Spec.ClusterIP != "" {
			o.Spec.ClusterIPs = []string{o.Spec.ClusterIP} // as the API server does
		}
		return corevalidation.ValidateServiceCreate(o)
	case *core.Secret:
		return corevalidation.ValidateSecret(o)
	case *autoscaling.HorizontalPodAutoscaler:
		return autoscalingvalidation.ValidateHorizontalPodAutoscaler(o, autoscalingvalidation.HorizontalPodAutoscalerSpecValidationOptions{})
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
	for _, objects := range installations(t) {
		for _, object := range objects {
			pod := template(object)
			if pod == nil {
				continue
			}
			results := evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec)
			if result := podsecurity.AggregateCheckResults(results); !result.Allowed {
				t.Errorf("%s: %s: %s", title(object), result.ForbiddenReason(), result.ForbiddenDetail())
			}
			for _, c := range pod.Spec.Containers {
				if read := c.SecurityContext.ReadOnlyRootFilesystem; read == nil || !*read {
					t.Errorf("%s: its file system can be written to", title(object))
				}
				if c.Resources.Limits.Memory().IsZero() {
					t.Errorf("%s: its memory has no limit", title(object))
				}
			}
		}
	}
}

func TestWhatSelectsPodsFindsThem(t *testing.T) {
	for where, objects := range installations(t) {
		t.Run(where, func(t *testing.T) {
			found := func(of runtime.Object, selector labels.Selector, ports ...string) {
				t.Helper()
				matched := false
				for _, object := range objects {
					pod := template(object)
					if pod == nil || !selector.Matches(labels.Set(pod.Labels)) {
						continue
					}
					matched = true
					for _, port := range ports {
						if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port }) {
							t.Errorf("%s: %s has no port %q", title(of), title(object), port)
						}
					}
				}
				if selector.Empty() || !matched {
					t.Errorf("%s selects no pod", title(of))
				}
			}
			spread := func(of runtime.Object, pod *corev1.PodTemplateSpec) {
				t.Helper()
				var by []string
				for _, c := range pod.Spec.TopologySpreadConstraints {
					by = append(by, c.TopologyKey)
					if s := selector(t, c.LabelSelector); s.Empty() || !s.Matches(labels.Set(pod.Labels)) {
						t.Errorf("%s: spreading by %s counts other pods than its own", title(of), c.TopologyKey)
					}
				}
				if want := []string{"topology.kubernetes.io/zone", "kubernetes.io/hostname"}; !slices.Equal(by, want) {
					t.Errorf("%s is spread by %q, want %q", title(of), by, want)
				}
			}
			var workloads []string
			for _, object := range objects {
				switch o := object.(type) {
				case *appsv1.StatefulSet:
					found(o, selector(t, o.Spec.Selector))
					spread(o, &o.Spec.Template)
				case *appsv1.Deployment:
					workloads = append(workloads, o.Name)
					found(o, selector(t, o.Spec.Selector))
					spread(o, &o.Spec.Template)
				case *corev1.Service:
					for _, port := range o.Spec.Ports {
						found(o, labels.SelectorFromSet(o.Spec.Selector), port.TargetPort.String())
					}
				case *policyv1.PodDisruptionBudget:
					found(o, selector(t, o.Spec.Selector))
				case *podMonitor:
					if strings.HasPrefix(where, "example/setup") {
						continue // selects pods that are applied later
					}
					found(o, selector(t, &o.Spec.Selector), o.Spec.PodMetricsEndpoints[0].Port)
				}
			}
			for _, object := range objects {
				if o, ok := object.(*autoscalingv2.HorizontalPodAutoscaler); ok && !slices.Contains(workloads, o.Spec.ScaleTargetRef.Name) {
					t.Errorf("%s scales %s, and there is none", title(o), o.Spec.ScaleTargetRef.Name)
				}
			}
		})
	}
}

// TestWhatIsDeployedIsWhatIsMeant checks the namespaces, and counts the objects of important kinds.
func TestWhatIsDeployedIsWhatIsMeant(t *testing.T) {
	for where, objects := range installations(t) {
		for _, object := range objects {
			o := object.(metav1.Object)
			if _, itself := object.(*corev1.Namespace); !itself && where != "closeout" && where != "setup" && o.GetNamespace() != "closeout" {
				t.Errorf("%s: %s is in the namespace %q", where, title(object), o.GetNamespace())
			}
		}
	}
	kinds := map[string]int{}
	for _, object := range build(t, "../example") {
		kinds[object.GetObjectKind().GroupVersionKind().Kind]++
	}
	for kind, n := range map[string]int{"Service": 2, "PodDisruptionBudget": 2, "StatefulSet": 1, "Deployment": 1, "HorizontalPodAutoscaler": 1, "Secret": 3, "ServiceAccount": 2} {
		if kinds[kind] != n {
			t.Errorf("there are %d of %s, want %d", kinds[kind], kind, n)
		}
	}
}

// TestTheSettingsAreCloseouts loads the settings of each pod, and compares them with the rest of
// the pod.
func TestTheSettingsAreCloseouts(t *testing.T) {
	known := map[string]bool{}
	for _, s := range config.Settings() {
		known[s.Env] = true
		known[s.Env+"_FILE"] = s.Secret
	}
	for where, objects := range installations(t) {
		configMaps, secrets := map[string]map[string]string{}, map[string]map[string][]byte{}
		for _, object := range objects {
			switch o := object.(type) {
			case *corev1.ConfigMap:
				configMaps[o.Name] = o.Data
			case *corev1.Secret:
				secrets[o.Name] = o.Data
			}
		}
		if len(configMaps) != 1 {
			t.Errorf("%s: there are %d sources of settings, want one", where, len(configMaps))
		}
		for _, object := range objects {
			pod := template(object)
			if pod == nil {
				continue
			}
			t.Run(where+" "+title(object), func(t *testing.T) {
				container := pod.Spec.Containers[0]
				from := configMaps[container.EnvFrom[0].ConfigMapRef.Name]
				if len(from) == 0 {
					t.Fatal("it has no settings")
				}
				settings := maps.Clone(from)
				for _, variable := range container.Env {
					if _, twice := settings[variable.Name]; twice {
						t.Errorf("%s is set twice", variable.Name)
					}
					if variable.ValueFrom == nil && variable.Name != "GOMEMLIMIT" {
						settings[variable.Name] = variable.Value
					}
				}
				part := container.Args[0]
				var files []string
				for env, value := range settings {
					if !known[env] && !strings.HasPrefix(env, "TEMPORAL_") {
						t.Errorf("%s is no setting", env)
					}
					if file, ok := strings.CutPrefix(value, "/run/secrets/closeout/"); ok {
						files = append(files, file)
						value = filepath.Join("../example/installation/secrets", file)
					}
					t.Setenv(env, value)
				}
				// The pod has its own Secret, which has only the files named in the settings. Its
				// name changes with its content.
				name := pod.Spec.Volumes[slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Secret != nil })].Secret.SecretName
				if len(secrets) > 0 {
					if given := slices.Sorted(maps.Keys(secrets[name])); !slices.Equal(given, slices.Sorted(slices.Values(files))) {
						t.Errorf("Secret %s has %q, want %q", name, given, files)
					}
					if !regexp.MustCompile(`^closeout-` + part + `-[a-z0-9]{10}$`).MatchString(name) {
						t.Errorf("Secret %s: want a name of %s with the hash of its content", name, part)
					}
				}
				if want := "closeout-" + part; pod.Spec.ServiceAccountName != want {
					t.Errorf("it runs as %s, want %s", pod.Spec.ServiceAccountName, want)
				}
				c, err := config.Load(func(string) (string, bool) { return "", false }, part == "webhook")
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == c.Data && !m.ReadOnly }) {
					t.Errorf("nothing to write on is mounted at %s, CLOSEOUT_DATA", c.Data)
				}
				if part == "setup" {
					return
				}
				if part == "webhook" && c.CallbackToken == "" {
					t.Error("its path has no token")
				}
				checkMemory(t, &container)
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
				if part == "webhook" {
					needs += c.DrainTimeout + time.Duration(container.Lifecycle.PreStop.Sleep.Seconds)*time.Second
				}
				if grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second; grace < needs+10*time.Second {
					t.Errorf("it has %v to stop and may need %v", grace, needs)
				}
			})
		}
	}
}

// checkMemory computes GOMEMLIMIT as the kubelet does. It must be below the limit, and not far
// below.
func checkMemory(t *testing.T, container *corev1.Container) {
	t.Helper()
	limit := container.Resources.Limits.Memory().Value()
	soft := ""
	for _, variable := range container.Env {
		if from := variable.ValueFrom; from != nil && from.ResourceFieldRef != nil && from.ResourceFieldRef.Resource == "limits.memory" {
			divisor := from.ResourceFieldRef.Divisor.Value()
			soft = strconv.FormatInt((limit+divisor-1)/divisor, 10)
			continue
		}
		if variable.Name == "GOMEMLIMIT" {
			soft = strings.ReplaceAll(variable.Value, "$(MEMORY_LIMIT_MIB)", soft)
		}
	}
	number, ok := strings.CutSuffix(soft, "B")
	bytes, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || float64(bytes) < .85*float64(limit) || float64(bytes) > .96*float64(limit) {
		t.Errorf("GOMEMLIMIT is %q and the limit %d bytes, want 85%% to 96%% of it", soft, limit)
	}
}

// template returns an object's pod template, or nil.
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

func title(object runtime.Object) string {
	return object.GetObjectKind().GroupVersionKind().Kind + " " + object.(metav1.Object).GetName()
}
