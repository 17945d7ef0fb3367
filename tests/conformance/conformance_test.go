// Package conformance runs the public conformance suite of the Gateway API against a cluster that Sluice serves.
//
// `cargo xtask conformance` builds and runs it; the suite's own flags work too. What is claimed is what the suite can
// test: every feature that one of its gateway tests needs.
package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// What the one who runs it decides.
const (
	// A file for the names of the gateway tests and the features that they need, as JSON.
	planVariable = "SLUICE_CONFORMANCE_PLAN"
	// Names of tests, with commas between; the others are skipped. Without it all of them run.
	onlyVariable = "SLUICE_CONFORMANCE_ONLY"
	// An address that a Gateway may ask for, and one that it may not.
	usableVariable   = "SLUICE_CONFORMANCE_USABLE"
	unusableVariable = "SLUICE_CONFORMANCE_UNUSABLE"
)

// What a line about the end of a test begins with.
const mark = "=== ENDED "

// The five profiles of gateways.
var profiles = []suite.ConformanceProfileName{
	suite.GatewayHTTPConformanceProfileName,
	suite.GatewayGRPCConformanceProfileName,
	suite.GatewayTLSConformanceProfileName,
	suite.GatewayTCPConformanceProfileName,
	suite.GatewayUDPConformanceProfileName,
}

// plan is what a whole run consists of.
type plan struct {
	Tests    []string               `json:"tests"`
	Features []features.FeatureName `json:"features"`
}

// gatewayPlan has every test but those of meshes, and every feature that one of them needs.
func gatewayPlan() plan {
	var all plan
	for _, test := range tests.ConformanceTests {
		if slices.Contains(test.Features, features.SupportMesh) {
			continue
		}
		all.Tests = append(all.Tests, test.ShortName)
		all.Features = append(all.Features, test.Features...)
	}
	slices.Sort(all.Tests)
	slices.Sort(all.Features)
	all.Features = slices.Compact(all.Features)
	return all
}

// TestPlan writes down what a whole run consists of.
func TestPlan(t *testing.T) {
	path := os.Getenv(planVariable)
	if path == "" {
		t.Fatalf("%s names no file", planVariable)
	}
	text, err := json.MarshalIndent(gatewayPlan(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestConformance is the suite.
func TestConformance(t *testing.T) {
	options := conformance.DefaultOptions(t)
	options.ConformanceProfiles = profiles
	options.SupportedFeatures = gatewayPlan().Features
	options.UsableNetworkAddresses = addresses(usableVariable)
	options.UnusableNetworkAddresses = addresses(unusableVariable)
	options.SkipTests = append(options.SkipTests, unwanted(os.Getenv(onlyVariable))...)
	options.Hook = tell
	conformance.RunConformanceWithOptions(t, options)
}

// unwanted has every test that is not in a list of names; an empty list wants all.
func unwanted(list string) []string {
	if list == "" {
		return nil
	}
	wanted := strings.Split(list, ",")
	var others []string
	for _, test := range tests.ConformanceTests {
		if !slices.Contains(wanted, test.ShortName) {
			others = append(others, test.ShortName)
		}
	}
	return others
}

// tell says at once how a test ended; Go's own lines about it come only when all have.
func tell(t *testing.T, test suite.ConformanceTest, _ *suite.ConformanceTestSuite) {
	outcome := "passed"
	switch {
	case t.Failed():
		outcome = "failed"
	case t.Skipped():
		outcome = "skipped"
	}
	fmt.Printf("%s%s %s\n", mark, test.ShortName, outcome)
}

// addresses has the one address of an environment variable.
func addresses(variable string) []v1.GatewaySpecAddress {
	value := os.Getenv(variable)
	if value == "" {
		return nil
	}
	kind := v1.IPAddressType
	return []v1.GatewaySpecAddress{{Type: &kind, Value: value}}
}
