//go:build !race

#include "textflag.h"
#include "go_asm.h"

// How bytes of headers come to lie in a Packet: 128 for a byte that is 0.

// A source of IPv4, then a destination, of both addresses: the lower half of the second word.
DATA shuffles<>+0(SB)/8, $0x8080808080808080
DATA shuffles<>+8(SB)/8, $0x8080808000010203
DATA shuffles<>+16(SB)/8, $0x8080808080808080
DATA shuffles<>+24(SB)/8, $0x8080808004050607

// An address of IPv6: two words.
DATA shuffles<>+32(SB)/8, $0x0001020304050607
DATA shuffles<>+40(SB)/8, $0x08090a0b0c0d0e0f

// Of a transport header its ports, 4 bytes apart from both numbers of TCP.
DATA shuffles<>+48(SB)/8, $0x8080808000010203
DATA shuffles<>+56(SB)/8, $0x08090a0b04050607

// Of a TCP header window and flags.
DATA shuffles<>+64(SB)/8, $0x8080800d80800e0f
DATA shuffles<>+72(SB)/8, $0x8080808080808080
GLOBL shuffles<>(SB), RODATA|NOPTR, $80

// CONSTANT puts a word into the lower half of X, and 0 into the upper.
#define CONSTANT(word, X) \
	MOVQ  $word, AX; \
	VMOVQ AX, X

// KINDS are the flags FIN, SYN, RST, ACK of a TCP header where they lie behind the byte with its
// length, ACKED is ACK alone.
#define KINDS 0x1700
#define ACKED 0x1000

// func plainAVX(mem []byte, metas *graph.Slots, idx []uint16, packets []flow.Packet) int
//
//	SI index   DI packet   R8 memory   R9 metas
//	BX Meta    R10 IP header           R11 transport header   CX from one to the other
//	DX bytes from the transport header on, and R12 of them in the first buffer
//	R13 flags  R15 protocol
//	X5 what the tail of its family's keys has
TEXT ·plainAVX(SB), NOSPLIT, $0-88
	MOVQ mem_base+0(FP), R8
	MOVQ metas+24(FP), R9
	MOVQ idx_base+32(FP), SI
	MOVQ packets_base+56(FP), DI
	MOVQ idx_len+40(FP), AX
	LEAQ (SI)(AX*2), AX
	MOVQ AX, ret+80(FP) // where the index ends, while it lasts
	VMOVDQU shuffles<>+0(SB), X6
	VMOVDQU shuffles<>+16(SB), X7
	VMOVDQU shuffles<>+32(SB), X8
	VMOVDQU shuffles<>+48(SB), X9
	VMOVDQU shuffles<>+64(SB), X10
	CONSTANT(const_tailIPv4, X11)
	CONSTANT(const_tailIPv6, X12)
	CONSTANT(const_tailTCP, X13)
	CONSTANT(const_tailUDP, X14)
	CONSTANT(const_steadyKind, X15)
	JMP  next

packet:
	MOVWLZX (SI), BX
	ANDL $const_slotMask, BX
	SHLL $6, BX
	ADDQ R9, BX
	MOVL const_metaOff(BX), R14
	MOVL const_metaHead(BX), R12
	MOVWLZX const_metaL3(BX), R10
	MOVWLZX const_metaL4(BX), R11
	MOVWLZX const_metaFlags(BX), R13
	MOVL const_metaLen(BX), DX
	MOVBLZX const_metaProto(BX), R15
	LEAQ (R14)(R12*1), AX
	CMPQ AX, mem_len+8(FP) // the whole first buffer lies in memory
	JHI  done
	SUBQ R11, R12
	CMPQ R12, $const_udpSize
	JLT  done
	MOVQ R11, CX
	SUBQ R10, CX
	CMPQ CX, $const_ipv4Size
	JLT  done
	TESTL $const_metaFromUs, R13
	JNE  done
	ADDQ R8, R14
	SUBL R10, DX
	MOVL DX, const_packetBytes(DI)
	SUBL CX, DX
	ADDQ R14, R10
	ADDQ R14, R11
	TESTL $const_metaIPv6, R13
	JNE  six
	VMOVDQU 12(R10), X0
	VPSHUFB X6, X0, X1
	VPSHUFB X7, X0, X2
	VMOVDQA X11, X5

keyed:
	VMOVDQU X1, const_packetSrcHi(DI)
	VMOVDQU X2, const_packetDstHi(DI)
	CMPL R15, $const_protoTCP
	JNE  datagram
	CMPQ R12, $const_tcpSize
	JLT  done
	MOVWLZX 12(R11), AX
	MOVL AX, CX
	ANDL $KINDS, CX
	CMPL CX, $ACKED
	JNE  done
	SHRL $2, AX
	ANDL $0x3C, AX // bytes of the header
	CMPQ AX, $const_tcpSize
	JLT  done
	CMPQ AX, R12
	JGT  done
	SUBL AX, DX
	MOVL DX, const_packetLength(DI)
	VMOVDQU (R11), X0
	VPSHUFB X9, X0, X1
	VPOR    X13, X5, X5
	VPOR    X5, X1, X1
	VPSHUFB X10, X0, X2
	VPOR    X15, X2, X2
	VPINSRW $1, const_metaSegments(BX), X2, X2
	VMOVDQU X1, const_packetTail(DI)
	VMOVQ   X2, const_packetWindow(DI)

read:
	ANDL $~(const_metaJudged|const_metaOnTrial), R13
	MOVW R13, const_metaFlags(BX)
	ADDQ $2, SI
	ADDQ $const_packetSize, DI

next:
	CMPQ SI, ret+80(FP)
	JNE  packet

done:
	SUBQ idx_base+32(FP), SI
	SHRQ $1, SI
	MOVQ SI, ret+80(FP)
	RET

datagram:
	CMPL R15, $const_protoUDP
	JNE  done
	VMOVQ   (R11), X0
	VPSHUFB X9, X0, X1
	VPOR    X14, X5, X5
	VPOR    X5, X1, X1
	VMOVQ   X1, const_packetTail(DI)
	MOVWLZX const_metaSegments(BX), AX
	SHLL $16, AX
	MOVQ AX, const_packetWindow(DI)
	JMP  read

six:
	CMPQ CX, $const_ipv6Size
	JLT  done
	VMOVDQU 8(R10), X1
	VMOVDQU 24(R10), X2
	VPSHUFB X8, X1, X1
	VPSHUFB X8, X2, X2
	VMOVDQA X12, X5
	JMP  keyed
