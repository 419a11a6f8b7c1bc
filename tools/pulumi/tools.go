//go:build tools

// Package tools pins the Pulumi command line as an ordinary Go dependency, so that it can be built where only a Go
// module proxy can be reached. go.sum is what makes that build reproducible.
package tools

import _ "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
