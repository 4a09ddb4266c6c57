"""KVM of v5.16, the vCPU path: virt/kvm/kvm_main.c and arch/x86/kvm/{x86,cpuid}.c with vmx/vmx.c."""
