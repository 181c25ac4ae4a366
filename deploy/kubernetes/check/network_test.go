package check

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// end is one end of a connection: a pod, or an address outside of the cluster.
type end struct {
	pod       bool
	namespace string
	labels    labels.Set
	ports     []corev1.ContainerPort
	address   netip.Addr
}

// namespaces has the labels of the namespaces that the documentation tells the operator to label.
// Kubernetes adds the label with the name.
var namespaces = map[string]labels.Set{"observability": {"closeout/admin": "allowed"}}

func namespaceLabels(name string) labels.Set {
	return labels.Merge(labels.Set{"kubernetes.io/metadata.name": name}, namespaces[name])
}

// policies are network policies, evaluated as a network plugin does.
type policies []*networkingv1.NetworkPolicy

// allow reports whether one end reaches a port of the other: the sender's policies must let it out,
// and the receiver's must let it in.
func (p policies) allow(t *testing.T, from, to end, port int32, protocol corev1.Protocol) bool {
	t.Helper()
	out := p.permit(t, networkingv1.PolicyTypeEgress, from, to, to, port, protocol)
	in := p.permit(t, networkingv1.PolicyTypeIngress, to, from, to, port, protocol)
	return out && in
}

// permit evaluates one direction for a subject. If no policy selects the subject, everything is
// permitted. Otherwise, everything that a rule of any selecting policy permits is.
func (p policies) permit(t *testing.T, direction networkingv1.PolicyType, subject, peer, receiver end, port int32, protocol corev1.Protocol) bool {
	t.Helper()
	if !subject.pod {
		return true
	}
	isolated := false
	for _, policy := range p {
		if policy.Namespace != subject.namespace || !slices.Contains(policy.Spec.PolicyTypes, direction) || !selector(t, &policy.Spec.PodSelector).Matches(subject.labels) {
			continue
		}
		isolated = true
		if direction == networkingv1.PolicyTypeIngress {
			for _, rule := range policy.Spec.Ingress {
				if peersMatch(t, rule.From, policy.Namespace, peer) && portsMatch(rule.Ports, receiver, port, protocol) {
					return true
				}
			}
			continue
		}
		for _, rule := range policy.Spec.Egress {
			if peersMatch(t, rule.To, policy.Namespace, peer) && portsMatch(rule.Ports, receiver, port, protocol) {
				return true
			}
		}
	}
	return !isolated
}

func peersMatch(t *testing.T, peers []networkingv1.NetworkPolicyPeer, own string, e end) bool {
	t.Helper()
	return len(peers) == 0 || slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
		if peer.IPBlock != nil {
			// Some network plugins never match a pod by its address, so assume that none does.
			within := func(cidr string) bool { return netip.MustParsePrefix(cidr).Contains(e.address) }
			return !e.pod && within(peer.IPBlock.CIDR) && !slices.ContainsFunc(peer.IPBlock.Except, within)
		}
		if !e.pod {
			return false
		}
		if peer.NamespaceSelector == nil && e.namespace != own {
			return false
		}
		matches := func(s *metav1.LabelSelector, of labels.Set) bool { return s == nil || selector(t, s).Matches(of) }
		return matches(peer.NamespaceSelector, namespaceLabels(e.namespace)) && matches(peer.PodSelector, e.labels)
	})
}

func portsMatch(ports []networkingv1.NetworkPolicyPort, receiver end, port int32, protocol corev1.Protocol) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		if *p.Protocol != protocol {
			return false
		}
		if p.Port == nil || p.Port.StrVal == "" && p.Port.IntVal == port {
			return true
		}
		return slices.ContainsFunc(receiver.ports, func(c corev1.ContainerPort) bool { return c.Name == p.Port.StrVal && c.ContainerPort == port })
	})
}

// ends returns all possible ends by their names in the documentation.
func ends(t *testing.T, objects []runtime.Object) map[string]end {
	t.Helper()
	pod := func(namespace string, l labels.Set) end { return end{pod: true, namespace: namespace, labels: l} }
	all := map[string]end{
		"a pod here with the label":           pod("closeout", labels.Set{"closeout/admin": "allowed", "app.kubernetes.io/name": "prometheus"}),
		"a pod of a namespace with the label": pod("observability", labels.Set{"app.kubernetes.io/name": "prometheus"}),
		"a pod here":                          pod("closeout", labels.Set{"app": "other"}),
		"a pod elsewhere":                     pod("shop", labels.Set{"app": "other"}),
		"a pod elsewhere with the label":      pod("shop", labels.Set{"closeout/admin": "allowed", "app.kubernetes.io/name": "closeout"}),
		"an ingress controller":               pod("ingress-nginx", labels.Set{"app.kubernetes.io/name": "ingress-nginx"}),
		"kube-dns":                            pod("kube-system", labels.Set{"k8s-app": "kube-dns"}),
		"another pod of kube-system":          pod("kube-system", labels.Set{"k8s-app": "other"}),
		"a pod of `temporal`":                 pod("temporal", labels.Set{"app.kubernetes.io/name": "temporal"}),
		"a pod of `postgresql`":               pod("postgresql", labels.Set{"app.kubernetes.io/name": "postgresql"}),
		"a pod of `monitoring`":               pod("monitoring", labels.Set{"app.kubernetes.io/name": "otel-collector"}),
	}
	for name, address := range map[string]string{
		"a public address": "52.218.0.1", "a public address of IPv6": "2600:1f00::1", "a private address": "10.11.12.13", "a private address of IPv6": "fd12::1",
		"NodeLocal DNSCache": "169.254.20.10", "the node's metadata": "169.254.169.254", "EKS Pod Identity": "169.254.170.23", "GKE's metadata": "169.254.169.252",
	} {
		all[name] = end{address: netip.MustParseAddr(address)}
	}
	for _, object := range objects {
		if p := template(object); p != nil {
			all[p.Labels["app.kubernetes.io/component"]] = end{pod: true, namespace: "closeout", labels: p.Labels, ports: p.Spec.Containers[0].Ports}
		}
	}
	return all
}

// anywhere returns the names of the ends without policies of ours.
func anywhere(all map[string]end) (names []string) {
	for name, e := range all {
		if e.namespace != "closeout" {
			names = append(names, name)
		}
	}
	return names
}

var networkRow = regexp.MustCompile(`(?m)^\| ([^|\n]+) \| ([^|\n]+) \| (\d+)(/UDP)? \|([^|\n]*)\|$`)

// TestTheNetworkPoliciesAllowWhatIsDocumented evaluates the rendered policies for each pair of
// ends. Exactly the connections in docs/kubernetes.md are allowed.
func TestTheNetworkPoliciesAllowWhatIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := networkRow.FindAllStringSubmatch(string(page), -1)
	if len(rows) < 8 {
		t.Fatalf("docs/kubernetes.md has %d rows of who may talk to whom", len(rows))
	}
	ports := []struct {
		port     int32
		protocol corev1.Protocol
	}{{53, corev1.ProtocolUDP}, {53, corev1.ProtocolTCP}, {80, corev1.ProtocolTCP}, {443, corev1.ProtocolTCP}, {988, corev1.ProtocolTCP},
		{4318, corev1.ProtocolTCP}, {5432, corev1.ProtocolTCP}, {6443, corev1.ProtocolTCP}, {7233, corev1.ProtocolTCP}, {8080, corev1.ProtocolTCP}, {9090, corev1.ProtocolTCP}}
	for _, component := range []string{"", "eks", "gke", "aks", "temporal-cloud", "podmonitor"} {
		t.Run("example "+component, func(t *testing.T) {
			dir := withComponent(t, component)
			objects := slices.Concat(build(t, dir+"/example"), build(t, dir+"/example/setup"))
			var p policies
			for _, object := range objects {
				if policy, ok := object.(*networkingv1.NetworkPolicy); ok {
					p = append(p, policy)
				}
			}
			all := ends(t, objects)
			documented := map[string]bool{}
			expand := func(list string) (names []string) {
				for name := range strings.SplitSeq(list, ", ") {
					if name == "anywhere" {
						names = append(names, anywhere(all)...)
					} else if _, known := all[name]; known {
						names = append(names, name)
					} else {
						t.Fatalf("docs/kubernetes.md: nobody is called %q here", name)
					}
				}
				return names
			}
			for _, row := range rows {
				if only := strings.Trim(row[5], " `"); only != "" && only != component {
					continue
				}
				protocol := "TCP"
				if row[4] != "" {
					protocol = "UDP"
				}
				for _, from := range expand(row[1]) {
					for _, to := range expand(row[2]) {
						documented[fmt.Sprint(from, " → ", to, ":", row[3], "/", protocol)] = true
					}
				}
			}
			for from, a := range all {
				for to, b := range all {
					if from == to || a.namespace != "closeout" && b.namespace != "closeout" {
						continue
					}
					for _, port := range ports {
						key := fmt.Sprint(from, " → ", to, ":", port.port, "/", port.protocol)
						if got := p.allow(t, a, b, port.port, port.protocol); got != documented[key] {
							t.Errorf("%s: allowed is %v, documented %v", key, got, documented[key])
						}
						delete(documented, key)
					}
				}
			}
			for key := range documented {
				t.Errorf("%s is documented and was not tried", key)
			}
		})
	}
}

// TestASelectorOnAPeerWouldBeFound breaks a policy as kustomize's includeSelectors does, which adds
// the labels of our own pods to the peer's selector.
func TestASelectorOnAPeerWouldBeFound(t *testing.T) {
	objects := build(t, "../example")
	all := ends(t, objects)
	var p policies
	for _, object := range objects {
		policy, ok := object.(*networkingv1.NetworkPolicy)
		if !ok {
			continue
		}
		for _, rule := range policy.Spec.Ingress {
			for _, peer := range rule.From {
				if peer.PodSelector != nil {
					peer.PodSelector.MatchLabels["app.kubernetes.io/name"] = "closeout"
				}
			}
		}
		p = append(p, policy)
	}
	if p.allow(t, all["a pod here with the label"], all["worker"], 9090, corev1.ProtocolTCP) {
		t.Error("the documented Prometheus is let in by a selector that it doesn't match")
	}
}
