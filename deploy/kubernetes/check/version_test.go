package check

import (
	"os"
	"reflect"
	"regexp"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
)

// TestTheMinimumVersionIsWhatIsDocumented drops the fields that an API server of a version doesn't
// know. The documented minimum version drops none, and the version before it drops some.
func TestTheMinimumVersionIsWhatIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`\*\*Kubernetes (\d+\.\d+)\*\*`).FindSubmatch(page)
	if found == nil {
		t.Fatal("docs/kubernetes.md names no version")
	}
	minimum := version.MustParse(string(found[1]))
	for _, test := range []struct {
		version *version.Version
		drops   bool
	}{{minimum, false}, {minimum.SubtractMinor(1), true}} {
		t.Run(test.version.String(), func(t *testing.T) {
			featuregatetesting.SetFeatureGateEmulationVersionDuringTest(t, utilfeature.DefaultFeatureGate, test.version)
			dropped := ""
			for where, objects := range installations(t) {
				for _, object := range objects {
					external := template(object)
					if external == nil {
						continue
					}
					var before core.PodTemplateSpec
					if err := legacyscheme.Scheme.Convert(external, &before, schema.GroupVersion{Version: "v1"}); err != nil {
						t.Fatal(err)
					}
					after := before.DeepCopy()
					pod.DropDisabledTemplateFields(after, nil)
					if !reflect.DeepEqual(&before, after) {
						dropped = where + ": " + title(object)
					}
				}
			}
			if (dropped != "") != test.drops {
				t.Errorf("Kubernetes %s drops fields of %q", test.version, dropped)
			}
		})
	}
}
