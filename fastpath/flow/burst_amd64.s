//go:build !race

#include "textflag.h"
#include "go_asm.h"

// What the loops of portable.go do, in half the instructions. Both functions know only of
// instructions that every amd64 has.

// The word of a core, from the entry on.
#define STATE   (entry_core+core_state)
#define SENT    (entry_core+core_sent)
#define HEARD   (entry_core+core_heard)
#define VERDICT (entry_core+core_verdict)
#define HOPS    (entry_core+core_nextHop)
#define STAMP   (entry_core+core_stamp)

// MIX folds the product of AX and DX into AX.
#define MIX \
	MULQ DX;    \
	XORQ DX, AX

// func locate(index []bucket, entries []entry, s *seed, packets []Packet, refs []Ref)
//
//	DI packets    SI index    R8-R13 the seed, then BX its last word
//	CX how many   R15 mask of the index
TEXT ·locate(SB), 0, $512-104
	MOVQ s+48(FP), AX
	MOVQ 0(AX), R8
	MOVQ 8(AX), R9
	MOVQ 16(AX), R10
	MOVQ 24(AX), R11
	MOVQ 32(AX), R12
	MOVQ 40(AX), R13
	MOVQ index_base+0(FP), SI
	MOVQ index_len+8(FP), R15
	DECQ R15
	MOVQ packets_base+56(FP), DI
	MOVQ packets_len+64(FP), CX
	XORL R14, R14
	JMP hashed

hash:
	MOVQ (Packet_Key+Key_SrcHi)(DI), AX
	MOVQ (Packet_Key+Key_SrcLo)(DI), DX
	XORQ R8, AX
	XORQ R9, DX
	MIX
	MOVQ (Packet_Key+Key_Tail)(DI), BX
	XORQ R12, BX
	XORQ AX, BX
	MOVQ (Packet_Key+Key_DstHi)(DI), AX
	MOVQ (Packet_Key+Key_DstLo)(DI), DX
	XORQ R10, AX
	XORQ R11, DX
	MIX
	XORQ R13, AX
	MOVQ BX, DX
	MIX
	MOVQ AX, hashes-512(SP)(R14*8)
	ANDQ R15, AX
	SHLQ $6, AX
	PREFETCHT0 (SI)(AX*1)
	ADDQ $Packet__size, DI
	INCQ R14

hashed:
	CMPQ R14, CX
	JLT hash

	MOVQ entries_base+24(FP), R8
	MOVQ entries_len+32(FP), R9
	MOVQ refs_base+80(FP), R10
	MOVQ $const_everyByte, R11
	XORL R14, R14
	JMP found

find:
	MOVQ hashes-512(SP)(R14*8), AX
	MOVQ AX, DX
	SHRQ $57, DX
	ORL  $128, DX
	IMULQ R11, DX
	ANDQ R15, AX
	SHLQ $6, AX
	ADDQ SI, AX
	MOVQ DX, X0
	MOVQ bucket_tags(AX), X1
	PCMPEQB X1, X0
	PMOVMSKB X0, BX            // has ones behind the eight cells
	TZCNTL BX, BX
	ANDL $(const_cells-1), BX
	MOVL bucket_refs(AX)(BX*4), AX
	MOVL AX, (R10)(R14*4)
	MOVL AX, DX
	SHRL $1, DX
	CMPQ DX, R9
	JAE astray
	SHLQ $8, DX
	ADDQ R8, DX
	PREFETCHT0 entry_core(DX)
	ANDL $1, AX
	SHLL $6, AX
	PREFETCHT0 (DX)(AX*1)

astray:
	INCQ R14

found:
	CMPQ R14, CX
	JLT find
	RET

// func steady(entries []entry, now Tick, packets []Packet, refs []Ref, out []Result) int
//
//	DI packet   R9 its reference   R10 its result
//	BX entry    AX direction       DX its side
TEXT ·steady(SB), 0, $8-112
	MOVQ packets_base+32(FP), DI
	MOVQ packets_len+40(FP), AX
	SHLQ $6, AX
	ADDQ DI, AX
	MOVQ AX, end-8(SP)
	MOVQ refs_base+56(FP), R9
	MOVQ out_base+80(FP), R10
	JMP next

packet:
	MOVL (R9), AX
	MOVL AX, BX
	SHRL $1, BX
	CMPQ BX, entries_len+8(FP)
	JAE  done
	SHLQ $8, BX
	ADDQ entries_base+0(FP), BX
	ANDL $1, AX
	MOVL AX, DX
	SHLL $6, DX
	ADDQ BX, DX

	MOVOU   (DI), X0
	MOVOU   (DX), X1
	MOVOU   16(DI), X2
	MOVOU   16(DX), X3
	PCMPEQL X1, X0
	PCMPEQL X3, X2
	PAND    X2, X0
	PMOVMSKB X0, CX
	MOVQ Key_Tail(DI), R8
	CMPL CX, $0xFFFF
	JNE  done
	CMPQ R8, Key_Tail(DX)
	JNE  done

	MOVQ STATE(BX), CX
	MOVL CX, R13
	ANDL $(const_stateMask|const_busy|const_dead), R13
	CMPL R13, $const_Established
	JNE  datagram
	CMPB Packet_Kind(DI), $const_Steady
	JNE  done

	// R15 becomes negative where one of the four terms of segment.window is.
	MOVL AX, R13
	XORL $1, R13
	MOVL HEARD(BX)(R13*8), R15 // edge
	MOVQ SENT(BX)(R13*8), R13  // their last and window
	MOVQ SENT(BX)(AX*8), R14   // our last and window
	MOVL Packet_Seq(DI), R8
	SUBL R8, R15
	ADDL Packet_Length(DI), R8 // end
	MOVQ R14, R12
	SHRQ $32, R12
	MOVL R8, SI
	SUBL R12, SI               // end - last
	LEAL (SI)(R13*1), R11
	ORL  R11, R15
	SHRQ $32, R13
	MOVL Packet_Ack(DI), R11
	SUBL R11, R13              // their last - ack
	ORL  R13, R15
	MOVL $const_leastAckWindow, R12
	CMPL R14, R12
	CMOVLHI R14, R12
	SUBL R13, R12
	ORL  R12, R15
	JLT  done

	// R12 becomes the window that is offered.
	MOVL CX, R13
	SHRL $(const_offerShift+4), R13
	SHRL $const_offerShift, CX
	TESTL AX, AX
	CMOVLNE R13, CX
	ANDL $15, CX
	MOVWLZX Packet_Window(DI), R12
	SHLL CX, R12

	TESTL SI, SI
	JGT  sent
	CMPL R12, R14
	JLS  heard

sent:
	MOVQ R14, CX
	SHRQ $32, CX
	TESTL SI, SI
	CMOVLGT R8, CX
	SHLQ $32, CX
	CMPL R12, R14
	CMOVLHI R12, R14 // which clears the upper half in any case
	ORQ  CX, R14
	MOVQ R14, SENT(BX)(AX*8)

heard:
	MOVQ HEARD(BX)(AX*8), R14
	MOVQ R14, R15
	SHRQ $32, R15
	MOVL R11, SI
	SUBL R15, SI  // ack - acked
	ADDL R11, R12
	MOVL R12, R8
	SUBL R14, R8  // ack + offer - granted
	TESTL SI, SI
	JGT  grant
	TESTL R8, R8
	JLE  count

grant:
	TESTL SI, SI
	CMOVLGT R11, R15
	SHLQ $32, R15
	TESTL R8, R8
	CMOVLGT R12, R14
	ORQ  R15, R14
	MOVQ R14, HEARD(BX)(AX*8)

count:
	MOVWLZX Packet_Segments(DI), CX
	ADDQ CX, side_packets(DX)
	MOVL Packet_Bytes(DI), CX
	ADDQ CX, side_bytes(DX)
	MOVL now+24(FP), CX
	CMPL CX, side_seen(DX)
	JEQ  decided
	MOVL CX, side_seen(DX)

decided:
	MOVQ STAMP(BX), R8
	MOVL (R9), CX
	MOVL CX, Result_Ref(R10)
	MOVW $const_Hit, Result_Outcome(R10) // and no reason
	MOVQ HOPS(BX), SI
	MOVL AX, CX
	SHLL $5, CX
	ROLQ CX, SI
	MOVQ SI, Result_NextHop(R10)
	MOVQ VERDICT(BX), SI
	MOVQ SI, Result_Verdict(R10)
	MOVQ R8, SI
	SHRQ $1, SI
	JCS  torn
	CMPQ R8, STAMP(BX)
	JNE  torn

stamped:
	MOVQ SI, Result_Generation(R10)
	ADDQ $Packet__size, DI
	ADDQ $4, R9
	ADDQ $Result__size, R10

next:
	CMPQ DI, end-8(SP)
	JNE  packet

done:
	SUBQ packets_base+32(FP), DI
	SHRQ $6, DI
	MOVQ DI, ret+104(FP)
	RET

datagram:
	CMPL R13, $const_BothWays
	JEQ  plain
	CMPL R13, $const_OneWay
	JNE  done
	TESTL AX, AX
	JNE  done

plain:
	CMPB Packet_Kind(DI), $const_Plain
	JEQ  count
	JMP  done

torn:
	XORL SI, SI
	JMP  stamped
