//go:build !race

#include "textflag.h"
#include "go_asm.h"

// MISFIT leads to done unless the packet of Meta BX lies whole in one buffer of memory, which
// has at least a header of so many bytes, and no offload or flag of the given has left work to do. R13 is
// the word of flags then, R10 the offset of the IP header, R12 the bytes from it on, CX where it lies.
#define MISFIT(refused, least) \
	MOVQ    const_metaFlags(BX), R13; \
	MOVWLZX const_metaL3(BX), R10;    \
	MOVL    const_metaHead(BX), R12;  \
	MOVL    const_metaOff(BX), CX;    \
	TESTQ   refused, R13;             \
	JNE     done;                     \
	CMPB    const_metaBufs(BX), $1;   \
	JNE     done;                     \
	LEAQ    (CX)(R12*1), AX;          \
	CMPQ    AX, mem_len+8(FP);        \
	JHI     done;                     \
	SUBQ    R10, R12;                 \
	CMPQ    R12, $least;              \
	JLT     done;                     \
	ADDQ    R10, CX;                  \
	ADDQ    R8, CX

// META makes BX the Meta of the next packet.
#define META \
	MOVWLZX (SI), BX;             \
	ANDL    $const_slotMask, BX;  \
	SHLL    $6, BX;               \
	ADDQ    R9, BX

// LOAD has the arguments in registers.
#define LOAD \
	MOVQ mem_base+0(FP), R8;   \
	MOVQ metas+24(FP), R9;     \
	MOVQ idx_base+32(FP), SI;  \
	MOVQ next_base+56(FP), DI; \
	MOVQ idx_len+40(FP), AX;   \
	LEAQ (SI)(AX*2), AX;       \
	MOVQ AX, ret+88(FP)

// COUNT returns how many packets SI has gone past.
#define COUNT \
	SUBQ idx_base+32(FP), SI; \
	SHRQ $1, SI;              \
	MOVQ SI, ret+88(FP);      \
	RET

// func accept4(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge, edge graph.Edge) int
//
//	SI index   DI edge   R8 memory   R9 metas
//	BX Meta    CX IP header, of which AX, DX have the first words and R14 the last
//	R11 bytes of the packet by its header   R12 bytes that there are
TEXT ·accept4(SB), NOSPLIT, $0-96
	LOAD
	JMP next

packet:
	META
	MOVQ $const_refused4, R14
	MISFIT(R14, const_window4)
	MOVQ 0(CX), AX
	MOVQ 8(CX), DX
	MOVL 16(CX), R14
	MOVQ $const_mask4, R11
	ANDQ AX, R11
	CMPQ R11, $0x45
	JNE  done
	CMPB DL, $1
	JLS  done
	MOVWLZX 2(CX), R11
	ROLW $8, R11
	CMPQ R11, $const_window4
	JLT  done
	CMPQ R11, R12
	JGT  done
	LEAQ ·Class4(SB), R15
	MOVBLZX 12(CX), R12
	MOVBLZX (R15)(R12*1), R12
	MOVBLZX R14, R10
	ORB  (R15)(R10*1), R12
	JNE  done

	// The sum of the header's words is a multiple of 0xffff; see sumHolds.
	MOVQ AX, R15
	ADDQ DX, R15
	ADCQ R14, R15
	ADCQ $0, R15
	MOVQ $const_inverse, R10
	IMULQ R10, R15
	MOVQ $const_multiples, R10
	CMPQ R15, R10
	JHI  done

	SHRL $8, DX
	MOVBLZX DX, DX // protocol
	LEAL -const_ipv4Size(R11), R12
	CMPL DX, $const_protoTCP
	JNE  datagram
	CMPL R12, $const_tcpSize
	JLT  done
	MOVBLZX (const_ipv4Size+12)(CX), R10
	SHRL $2, R10
	ANDL $0x3C, R10
	CMPL R10, $const_tcpSize
	JLT  done

sized:
	CMPL R10, R12
	JHI  done
	SHRQ $48, AX
	ANDL $const_dontFrag, AX // lies where the header has it
	ORL  AX, R13
	MOVW R13, const_metaFlags(BX)
	MOVWLZX const_metaL3(BX), R10
	ADDL R10, R11
	ADDL $const_ipv4Size, R10
	MOVW R10, const_metaL4(BX)
	MOVB DX, const_metaProto(BX)
	MOVL R11, const_metaLen(BX)
	MOVL R11, const_metaHead(BX)
	BSWAPL R14
	SHLQ $32, R14
	MOVQ R14, const_metaTo(BX)
	MOVBLZX edge+80(FP), AX
	MOVB AX, (DI)
	ADDQ $2, SI
	INCQ DI

next:
	CMPQ SI, ret+88(FP)
	JNE  packet

done:
	COUNT

datagram:
	CMPL DX, $const_protoUDP
	JNE  done
	MOVWLZX (const_window4-4)(CX), R10
	ROLW $8, R10
	CMPL R10, $const_udpSize
	JLT  done
	JMP  sized

// func accept6(mem []byte, metas *graph.Slots, idx []uint16, next []graph.Edge, edge graph.Edge) int
//
// The registers are those of accept4.
TEXT ·accept6(SB), NOSPLIT, $0-96
	LOAD
	JMP next

packet:
	META
	MOVQ $const_refused6, R14
	MISFIT(R14, const_window6)
	MOVL R13, AX
	ANDL $const_ipv6, AX
	JNE  told
	TESTL R10, R10 // an EtherType has said that it is IPv4
	JNE  done

told:
	MOVQ 0(CX), AX
	MOVL AX, R11
	ANDL $0xF0, R11
	CMPL R11, $0x60
	JNE  done
	MOVQ AX, DX
	SHRQ $56, DX
	CMPL DX, $1
	JLS  done
	MOVWLZX 4(CX), R11
	ROLW $8, R11
	ADDQ $const_ipv6Size, R11
	CMPQ R11, $const_window6
	JLT  done
	CMPQ R11, R12
	JGT  done
	LEAQ ·class6(SB), R15
	MOVBLZX 8(CX), R12
	MOVBLZX (R15)(R12*1), R12
	MOVBLZX 24(CX), R10
	ORB  (R15)(R10*1), R12
	JNE  done
	MOVBLZX 6(CX), DX
	LEAL -const_ipv6Size(R11), R12
	CMPL DX, $const_protoTCP
	JNE  datagram
	CMPL R12, $const_tcpSize
	JLT  done
	MOVBLZX (const_ipv6Size+12)(CX), R10
	SHRL $2, R10
	ANDL $0x3C, R10
	CMPL R10, $const_tcpSize
	JLT  done

sized:
	CMPL R10, R12
	JHI  done
	ORL  $(const_ipv6|const_dontFrag), R13
	MOVW R13, const_metaFlags(BX)
	MOVWLZX const_metaL3(BX), R10
	ADDL R10, R11
	ADDL $const_ipv6Size, R10
	MOVW R10, const_metaL4(BX)
	MOVB DX, const_metaProto(BX)
	MOVL R11, const_metaLen(BX)
	MOVL R11, const_metaHead(BX)
	MOVQ 24(CX), R14
	BSWAPQ R14
	MOVQ R14, const_metaTo(BX)
	MOVBLZX edge+80(FP), AX
	MOVB AX, (DI)
	ADDQ $2, SI
	INCQ DI

next:
	CMPQ SI, ret+88(FP)
	JNE  packet

done:
	COUNT

datagram:
	CMPL DX, $const_protoUDP
	JNE  done
	MOVWLZX (const_window6-4)(CX), R10
	ROLW $8, R10
	CMPL R10, $const_udpSize
	JLT  done
	JMP  sized
